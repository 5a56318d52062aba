//! The documents' own commands and examples, run: what a reader pastes works, and prints what the
//! page says it prints.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::PoisonError;

use tempfile::TempDir;

use super::quickstart::ONE_AT_A_TIME;
use crate::order::root;

/// A fenced block of a page.
struct Block<'a> {
    language: &'a str,
    text: &'a str,
    /// What the comment above it says of how a test runs it.
    note: &'a str,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some((before, after)) = rest.split_once("\n```") {
        let (language, after) = after.split_once('\n').unwrap();
        let (text, after) = after.split_once("\n```\n").unwrap();
        let above = before.lines().last().unwrap_or_default();
        let note = above.strip_prefix("<!-- ").and_then(|note| note.strip_suffix(" -->"));
        found.push(Block { language, text, note: note.unwrap_or_default() });
        rest = after;
    }
    found
}

fn read(page: &str) -> String {
    std::fs::read_to_string(root().join(page)).unwrap()
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What the shell needs before the page's own commands: gates on free ports, which end with it.
fn prelude() -> String {
    let (decisions, http) = (free_port(), free_port());
    format!(
        r#"set -eum
trap 'for gate in $(jobs -p); do kill -- -"$gate" || true; done; wait' EXIT
tollgate() {{
    case "$1 $*" in
    *unix* | *sidecar*) command tollgate "$@" ;;
    serve*) command tollgate "$@" --set listeners.decisions.tcp=127.0.0.1:{decisions} \
        --set listeners.http.tcp=127.0.0.1:{http} ;;
    check*) command tollgate "$@" --gate http://127.0.0.1:{decisions} ;;
    *) command tollgate "$@" ;;
    esac
}}
curl() {{
    command curl --fail-with-body --max-time 10 --retry 3 --retry-connrefused "${{@/127.0.0.1:9193/127.0.0.1:{http}}}"
}}
ready() {{
    for _ in $(seq 300); do
        if [ -S gate.sock ] || (exec 3<>/dev/tcp/127.0.0.1/"$1") 2>/dev/null; then return; fi
        sleep 0.1
    done
    exit 99
}}
port={decisions}
"#
    )
}

/// The commands of a page as one script.
fn script(blocks: &[Block<'_>]) -> String {
    let mut script = prelude();
    for block in blocks.iter().filter(|block| block.language == "sh") {
        let note = block.note;
        if let Some(instead) = note.strip_prefix("run as: ") {
            script.push_str(&format!("{instead}\n"));
        } else if note == "run beside the rest" {
            script.push_str(&format!("{{\n{}\n}} >&2 &\nready $port\nport=0\n", block.text));
        } else if !note.starts_with("not run: ") {
            script.push_str(&format!("{}\n", block.text));
        }
    }
    script
}

/// Runs commands in `folder`, with this build's `tollgate` on the path.
fn run(folder: &Path, script: &str) -> Output {
    let binary = Path::new(env!("CARGO_BIN_EXE_tollgate")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash").args(["-c", script]).current_dir(folder).env("PATH", path).output();
    let output = output.expect("bash runs");
    assert!(
        output.status.success(),
        "the commands ended with {}:\n{}\n--- standard error\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Runs the commands of a page, and looks for what it says they print.
fn run_page(name: &str) {
    let page = read(name);
    let blocks = blocks(&page);
    let folder = TempDir::new().unwrap();
    let output = run(folder.path(), &script(&blocks));
    let printed = String::from_utf8(output.stdout).unwrap();
    let printed: Vec<&str> = printed.lines().map(str::trim_end).collect();
    for block in blocks.iter().filter(|block| block.language == "text") {
        // A line with an ellipsis differs every time.
        for line in block.text.lines().filter(|line| !line.contains('…')) {
            assert!(printed.contains(&line), "nothing printed `{line}`; this was:\n{}", printed.join("\n"));
        }
    }
}

#[test]
fn the_commands_of_the_readme_work_and_print_what_it_says() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    run_page("README.md");
}

#[test]
fn the_commands_of_the_authzen_page_work_and_print_what_it_says() {
    run_page("docs/authzen.md");
}

#[test]
fn the_examples_of_the_policies_page_work() {
    let page = read("docs/policies.md");
    let blocks = blocks(&page);
    let of = |language: &str| -> Vec<&str> {
        blocks.iter().filter(|block| block.language == language).map(|block| block.text).collect()
    };
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let [stays, reported, attributes] = of("cedar")[..] else { panic!("three blocks of Cedar") };
    write("my-policies/house.cedar", &format!("{stays}\n{reported}\n"));
    write("my-policies/attributes.cedarschema", attributes);
    write("catalog.json", of("json")[0]);
    write("cases/restricted.yaml", of("yaml")[1]);
    for entry in std::fs::read_dir(root().join("policies/base")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        write(&format!("policies/base/{name}"), &std::fs::read_to_string(&path).unwrap());
    }
    run(folder.path(), &script(&blocks));
}
