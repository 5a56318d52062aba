//! Reads taxonomies (purposes, regions) and the catalog of datasets, in Cedar's entity JSON.
//!
//! Refuses what the gate would drop or could not place: tags, attributes of a taxonomy, unknown
//! parents and regions, a dataset within itself.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cedar_policy::{Entities, Entity, EntityUid, EvalResult, Schema};

use super::entities::{Node, Types};
use super::load::Text;
use crate::document::{Problem, Problems, with_causes};
use crate::domain::DatasetPath;

/// The entities of one file, by id.
pub type Nodes = HashMap<String, Arc<Node>>;

/// Reads a taxonomy (purposes or regions) in Cedar's entity JSON.
///
/// # Errors
/// What Cedar does not accept, an entity of another type, a parent that is not in the file.
pub fn taxonomy(text: &Text, kind: &str, schema: &Schema) -> Result<Nodes, Problems> {
    let entities = parse(text, kind, schema)?;
    let mut nodes = Nodes::new();
    for entity in entities.iter() {
        let (uid, attributes, parents) = entity.clone().into_inner();
        if !attributes.is_empty() {
            return Err(at(text, &uid, "its attributes are not read; only its parents are"));
        }
        if let Some(parent) = parents.iter().find(|parent| entities.get(parent).is_none()) {
            return Err(at(text, &uid, &format!("its parent {parent} is not in the file")));
        }
        let ancestors = ancestors(&entities, &uid);
        nodes.insert(uid.id().unescaped().to_owned(), Arc::new(Node::plain(uid, ancestors)));
    }
    Ok(nodes)
}

/// Reads the catalog of datasets in Cedar's entity JSON, and places every dataset below the
/// paths above it and below `*`.
///
/// # Errors
/// As [`taxonomy`], an id that is not a dataset path, and a region that is not in `regions`.
pub fn catalog(text: &Text, types: &Types, schema: &Schema, regions: &Nodes) -> Result<Nodes, Problems> {
    let declared = parse(text, "Tollgate::Dataset", schema)?;
    let mut nodes = Nodes::new();
    for entity in declared.iter() {
        let (uid, attributes, _) = entity.clone().into_inner();
        let path: DatasetPath =
            uid.id().unescaped().parse().map_err(|error| at(text, &uid, &format!("{error}")))?;
        let ancestors = dataset_ancestors(&path, &declared, types);
        if ancestors.contains(&uid) {
            let message = "it is in itself, by way of its parents; a parent must not lie below it";
            return Err(at(text, &uid, message));
        }
        if let Some(Ok(EvalResult::EntityUid(region))) = entity.attr("region")
            && !regions.contains_key(region.id().unescaped())
        {
            return Err(at(text, &uid, &format!("its region {region} is not known")));
        }
        let node = Node::new(uid.clone(), attributes, ancestors)
            .map_err(|error| at(text, &uid, &error.to_string()))?;
        nodes.insert(path.as_str().to_owned(), Arc::new(node));
    }
    Ok(nodes)
}

/// The paths above a dataset, the root, and whatever the catalog declares above any of them.
fn dataset_ancestors(path: &DatasetPath, declared: &Entities, types: &Types) -> Vec<EntityUid> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut open = vec![path.clone()];
    while let Some(path) = open.pop() {
        let above = path.ancestors().map(|path| types.dataset(path));
        let declared = declared.ancestors(&types.dataset(path.as_str())).into_iter().flatten().cloned();
        for uid in above.chain(declared) {
            if seen.insert(uid.clone()) {
                open.extend(uid.id().unescaped().parse::<DatasetPath>());
                found.push(uid);
            }
        }
    }
    found
}

/// The node of a dataset that the catalog does not list: it has the attributes of the nearest
/// listed one above it, for what is said of a dataset is said of all that is in it.
pub fn uncatalogued(path: &DatasetPath, catalog: &Nodes, types: &Types) -> Node {
    let uid = types.dataset(path.as_str());
    let mut ancestors: Vec<EntityUid> = path.ancestors().map(|path| types.dataset(path)).collect();
    match path.ancestors().find_map(|ancestor| catalog.get(ancestor)) {
        None => Node::plain(uid, ancestors),
        Some(nearest) => {
            let further = nearest.ancestors.iter().filter(|uid| !ancestors.contains(uid)).cloned();
            let further: Vec<EntityUid> = further.collect();
            ancestors.extend(further);
            let entity = nearest.entity.renamed(uid.clone(), &ancestors);
            Node { entity, uid, ancestors, named: nearest.named.clone() }
        }
    }
}

fn parse(text: &Text, kind: &str, schema: &Schema) -> Result<Entities, Problems> {
    let entities = Entities::from_json_str(&text.content, Some(schema))
        .map_err(|error| Problems::from(Problem::new(&text.origin, with_causes(&error))))?;
    // With a schema, Cedar adds the schema's actions; they are no part of the file.
    let of_other_kind = entities
        .iter()
        .map(Entity::uid)
        .find(|uid| uid.type_name().basename() != "Action" && uid.type_name().to_string() != kind);
    if let Some(uid) = of_other_kind {
        return Err(at(text, &uid, &format!("an entity of type `{kind}` is expected here")));
    }
    // Cedar's public form of an entity loses its tags, and a policy that asks for one would not be told.
    if let Some(tagged) = entities.iter().find(|entity| has_tags(entity)) {
        return Err(at(text, &tagged.uid(), "its tags are not read; give it attributes"));
    }
    let own = entities.iter().filter(|entity| entity.uid().type_name().basename() != "Action").cloned();
    Entities::from_entities(own, None)
        .map_err(|error| Problems::from(Problem::new(&text.origin, with_causes(&error))))
}

fn has_tags(entity: &Entity) -> bool {
    // What cannot be looked at is taken to have some.
    let form = entity.to_json_value();
    let tags = |form: serde_json::Value| Some(!form.get("tags")?.as_object()?.is_empty());
    form.map_or(true, |form| tags(form).unwrap_or(false))
}

fn ancestors(entities: &Entities, uid: &EntityUid) -> Vec<EntityUid> {
    entities.ancestors(uid).into_iter().flatten().cloned().collect()
}

fn at(text: &Text, uid: &EntityUid, message: &str) -> Problems {
    Problems::from(Problem::new(&text.origin, message).under(uid.to_string()))
}
