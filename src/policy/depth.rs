//! Bounds how deep a text in Cedar's language goes, before Cedar reads it.
//!
//! Cedar parses, validates and drops what it read by recursion, and Rust cannot take back a stack
//! that ran out: the process would end, a running gate's with it. Refuses by counting brackets and
//! operators alone; whether the text means anything is for Cedar to say.

use super::load::Text;
use crate::document::Problem;

/// The deepest nesting of brackets.
const MAX_BRACKETS: usize = 64;

/// The most operators of one policy: each may hang below another, and the time that Cedar takes to
/// validate them grows with their square.
const MAX_OPERATORS: usize = 1_000;

/// The characters of operators; the same one twice, as in `||`, is one.
const OPERATORS: &[u8] = b"|&=<>!+-*.";

/// The operators that are words.
const WORDS: [&[u8]; 5] = [b"if", b"in", b"is", b"has", b"like"];

/// The two languages of Cedar.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    /// Of policies.
    Policies,
    /// Of schemas, which has no operators, and another kind of brackets: `Set<...>`.
    Schema,
}

/// What stands in a text, as far as depth is concerned.
enum Token {
    Open,
    Close,
    End,
    Operator,
    Other,
}

/// The first place where the text is too deep.
pub(super) fn exceeded(text: &Text, language: Language) -> Option<Problem> {
    let (mut rest, mut line) = (text.content.as_bytes(), 1);
    let (mut brackets, mut operators) = (0_usize, 0);
    while let Some((token, after)) = next(rest, language) {
        match token {
            Token::Open => brackets += 1,
            Token::Close => brackets = brackets.saturating_sub(1),
            Token::Operator => operators += 1,
            Token::End => operators = 0,
            Token::Other => {}
        }
        let problem = |message: String| Some(Problem::new(&text.origin, message).at_line(line));
        if brackets > MAX_BRACKETS {
            return problem(format!("more than {MAX_BRACKETS} brackets are open here; nest less deeply"));
        }
        if operators > MAX_OPERATORS {
            let remedy = "list values in a set, or make several policies of it";
            return problem(format!("the policy has more than {MAX_OPERATORS} operators; {remedy}"));
        }
        let taken = rest.len() - after.len();
        let lines = rest.iter().take(taken).filter(|byte| **byte == b'\n').count();
        line += u32::try_from(lines).unwrap_or(u32::MAX);
        rest = after;
    }
    None
}

/// The first token, and what follows it. Strings and comments are one token, whatever is in them.
fn next(text: &[u8], language: Language) -> Option<(Token, &[u8])> {
    let (first, rest) = text.split_first()?;
    let in_policies = language == Language::Policies;
    Some(match first {
        b'(' | b'[' | b'{' => (Token::Open, rest),
        b')' | b']' | b'}' => (Token::Close, rest),
        b'<' if !in_policies => (Token::Open, rest),
        b'>' if !in_policies => (Token::Close, rest),
        b';' => (Token::End, rest),
        b'"' => (Token::Other, after_string(rest)),
        b'/' if rest.first() == Some(&b'/') => (Token::Other, after(rest, |byte| *byte != b'\n')),
        byte if in_policies && OPERATORS.contains(byte) => {
            (Token::Operator, rest.strip_prefix(&[*first]).unwrap_or(rest))
        }
        byte if is_word(byte) => {
            let rest = after(rest, is_word);
            let word = text.get(..text.len() - rest.len()).unwrap_or_default();
            (if in_policies && WORDS.contains(&word) { Token::Operator } else { Token::Other }, rest)
        }
        _ => (Token::Other, rest),
    })
}

fn is_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_'
}

fn after(text: &[u8], skip: impl Fn(&u8) -> bool) -> &[u8] {
    let end = text.iter().position(|byte| !skip(byte)).unwrap_or(text.len());
    text.get(end..).unwrap_or_default()
}

/// What follows the closing quote; nothing, where there is none.
fn after_string(text: &[u8]) -> &[u8] {
    let mut rest = text;
    loop {
        match rest {
            [] => return rest,
            [b'"', after @ ..] => return after,
            [b'\\', _, after @ ..] | [_, after @ ..] => rest = after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(content: &str, language: Language) -> Option<String> {
        let text = Text { origin: "a.cedar".to_owned(), content: content.to_owned() };
        exceeded(&text, language).map(|problem| problem.to_string())
    }

    #[test]
    fn tells_the_line_where_a_text_becomes_too_deep() {
        let nested = |depth: usize| {
            format!(
                "permit(principal,\naction, resource) when {{{}true{}}};",
                "(".repeat(depth),
                ")".repeat(depth)
            )
        };
        assert_eq!(found(&nested(MAX_BRACKETS - 1), Language::Policies), None);
        let deep = found(&nested(MAX_BRACKETS), Language::Policies).unwrap();
        assert!(deep.starts_with("a.cedar:2: more than 64 brackets"), "{deep}");
        let sets = |depth: usize| format!("type T =\n{}Long{};", "Set<".repeat(depth), ">".repeat(depth));
        assert_eq!(found(&sets(MAX_BRACKETS), Language::Schema), None);
        assert!(found(&sets(MAX_BRACKETS + 1), Language::Schema).unwrap().starts_with("a.cedar:2: "));
    }

    #[test]
    fn counts_operators_in_each_policy_by_itself() {
        for operand in [" || a", ".a", " && !a", " == 1", " in b", "\nif"] {
            let policy = |count: usize| format!("a{};", operand.repeat(count));
            assert_eq!(found(&policy(MAX_OPERATORS / 2).repeat(3), Language::Policies), None, "{operand}");
            let found = found(&policy(MAX_OPERATORS + 1), Language::Policies);
            assert!(found.is_some_and(|problem| problem.contains("more than 1000 operators")), "{operand}");
        }
        assert_eq!(found(&"a: Set<Long>, ".repeat(MAX_OPERATORS + 1), Language::Schema), None);
    }

    #[test]
    fn strings_and_comments_have_no_depth() {
        let many = MAX_OPERATORS + 1;
        for (open, close) in [("\"", "\""), ("// ", "\n"), ("\"\\\"", "\\\\\"")] {
            let content = format!("{open}{}{close}(", "(.".repeat(many));
            assert_eq!(found(&content, Language::Policies), None, "{open}");
        }
        assert_eq!(found(&format!("\"{}", "(".repeat(many)), Language::Policies), None, "no closing quote");
        assert_eq!(found("\"\\", Language::Policies), None, "it ends in an escape");
    }
}
