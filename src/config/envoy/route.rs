//! Routes: what the path of a request says. Refuses templates that could be read two ways.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What the path of a request says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The methods that it is about, such as `GET`; absent or empty: all.
    #[serde(default)]
    pub methods: Vec<String>,
    /// The path. `{dataset}` takes one segment as that field, `{dataset...}` all that are left, joined by `/`; so do
    /// `action`, `purpose`, `region`, `project` and `environment`. `{_}` and `{_...}` take any.
    pub path: PathTemplate,
    /// What is done.
    #[serde(default)]
    pub action: Option<String>,
    /// Which data is used.
    #[serde(default)]
    pub dataset: Option<String>,
    /// Why.
    #[serde(default)]
    pub purpose: Option<String>,
    /// Where the data will be processed.
    #[serde(default)]
    pub region: Option<String>,
    /// On whose behalf.
    #[serde(default)]
    pub project: Option<String>,
    /// In what kind of environment.
    #[serde(default)]
    pub environment: Option<String>,
}

impl Route {
    /// What it says of a field, whatever the path is.
    pub fn constant(&self, field: Field) -> Option<&str> {
        match field {
            Field::Action => self.action.as_deref(),
            Field::Dataset => self.dataset.as_deref(),
            Field::Purpose => self.purpose.as_deref(),
            Field::Region => self.region.as_deref(),
            Field::Project => self.project.as_deref(),
            Field::Environment => self.environment.as_deref(),
        }
    }
}

/// A field that a path may tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are the fields of a check")]
pub enum Field {
    Action,
    Dataset,
    Purpose,
    Region,
    Project,
    Environment,
}

impl Field {
    /// Every field.
    pub const ALL: [Self; 6] =
        [Self::Action, Self::Dataset, Self::Purpose, Self::Region, Self::Project, Self::Environment];

    /// Its name in templates and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Dataset => "dataset",
            Self::Purpose => "purpose",
            Self::Region => "region",
            Self::Project => "project",
            Self::Environment => "environment",
        }
    }
}

/// One part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// This segment and no other.
    Literal(String),
    /// Any one segment, as the field.
    One(Option<Field>),
    /// All segments that are left, at least one, as the field.
    Rest(Option<Field>),
}

/// The paths that a route is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathTemplate {
    text: String,
    segments: Vec<Segment>,
}

/// The text is not a path template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a path template: {problem}; write for example `/v1/datasets/{{dataset...}}`")]
pub struct TemplateError {
    text: String,
    problem: &'static str,
}

impl PathTemplate {
    /// Its parts, in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The fields that it takes from the path.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::One(field) | Segment::Rest(field) => *field,
        })
    }
}

fn segment(text: &str) -> Result<Segment, &'static str> {
    let Some(name) = text.strip_prefix('{') else {
        return match text {
            "" => Err("it has an empty segment"),
            "." | ".." => Err("it has a relative segment"),
            _ if text.contains(['{', '}']) => Err("braces hold a whole segment"),
            // Compared with what the path says once it is decoded.
            _ if text.contains(['%', '?', '#', ';', '\\']) || text.contains(char::is_control) => {
                Err("it has a character that paths here do not have; segments are written decoded")
            }
            _ => Ok(Segment::Literal(text.to_owned())),
        };
    };
    let name = name.strip_suffix('}').ok_or("braces hold a whole segment")?;
    let (name, is_rest) = name.strip_suffix("...").map_or((name, false), |name| (name, true));
    let field = match name {
        "_" => None,
        _ => Some(Field::ALL.into_iter().find(|field| field.as_str() == name).ok_or(
            "a name in braces is `action`, `dataset`, `purpose`, `region`, `project`, `environment` or `_`",
        )?),
    };
    Ok(if is_rest { Segment::Rest(field) } else { Segment::One(field) })
}

fn segments(text: &str) -> Result<Vec<Segment>, &'static str> {
    let path = text.strip_prefix('/').ok_or("it does not begin with `/`")?;
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let segments = path.split('/').map(segment).collect::<Result<Vec<_>, _>>()?;
    match segments.split_last() {
        Some((_, before)) if before.iter().any(|segment| matches!(segment, Segment::Rest(_))) => {
            Err("`...` is the last segment or not there at all")
        }
        _ => Ok(segments),
    }
}

impl FromStr for PathTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let problem = |problem| TemplateError { text: text.chars().take(80).collect(), problem };
        let template = Self { text: text.to_owned(), segments: segments(text).map_err(problem)? };
        let fields: Vec<Field> = template.fields().collect();
        if fields.iter().enumerate().any(|(at, field)| fields.iter().skip(at + 1).any(|other| other == field))
        {
            return Err(problem("it takes one field twice"));
        }
        Ok(template)
    }
}

impl TryFrom<String> for PathTemplate {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PathTemplate> for String {
    fn from(template: PathTemplate) -> Self {
        template.text
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl JsonSchema for PathTemplate {
    fn schema_name() -> Cow<'static, str> {
        "PathTemplate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "title": "path template",
            "pattern": "^/",
            "examples": ["/v1/datasets/{dataset...}"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_templates_apart() {
        let template: PathTemplate = "/v1/{project}/{_}/{dataset...}".parse().unwrap();
        let expected = [
            Segment::Literal("v1".to_owned()),
            Segment::One(Some(Field::Project)),
            Segment::One(None),
            Segment::Rest(Some(Field::Dataset)),
        ];
        assert_eq!(template.segments(), expected);
        assert_eq!("/".parse::<PathTemplate>().unwrap().segments(), []);
        assert_eq!("/{_...}".parse::<PathTemplate>().unwrap().segments(), [Segment::Rest(None)]);
    }

    #[test]
    fn refuses_what_could_be_read_two_ways() {
        for text in [
            "",
            "v1",
            "//",
            "/a/",
            "/a/../b",
            "/a%20b",
            "/a;b",
            "/a?b",
            "/{dataset",
            "/a{dataset}",
            "/{dataset}b",
            "/{subject}",
            "/{roles}",
            "/{organization}",
            "/{}",
            "/{dataset...}/b",
            "/{dataset}/{dataset}",
            "/{_...}/{dataset}",
        ] {
            assert!(text.parse::<PathTemplate>().is_err(), "{text}");
        }
    }
}
