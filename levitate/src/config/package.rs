//! `packages`: what is staged of the old system's programs.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};

/// Something to stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Package {
    /// A program with all that it needs: an absolute path, or a name that is looked up as a shell would.
    Program {
        /// The path or name.
        program: String,
        /// Whether the symlinks in /bin, /sbin, /usr/bin and /usr/sbin that lead to it come along: busybox's applets.
        links: bool,
    },
    /// A whole directory, and what the programs in it need from elsewhere.
    Directory(PathBuf),
    /// The files and directories that this file lists, one path to a line: a Nix closure's `store-paths`.
    Closure(PathBuf),
}

const EXPECTED: &str = r#"a program such as "/usr/sbin/dropbear" or "mtd_debug", { program = "/bin/busybox", links = true }, { directory = "/opt/tools" } or { closure = "/etc/nix-store-paths" }"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    program: Option<String>,
    links: Option<bool>,
    directory: Option<PathBuf>,
    closure: Option<PathBuf>,
}

struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = Package;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Package, E> {
        Ok(Package::Program { program: name.to_owned(), links: false })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Package, A::Error> {
        let absolute = |path: PathBuf| {
            let found = path.display().to_string();
            let message = format!("expected a path that begins with /, found \"{found}\"");
            if path.is_absolute() { Ok(path) } else { Err(de::Error::custom(message)) }
        };
        match Table::deserialize(MapAccessDeserializer::new(map))? {
            Table { program: Some(program), links, directory: None, closure: None } => {
                Ok(Package::Program { program, links: links.unwrap_or(false) })
            }
            Table { program: None, links: None, directory: Some(directory), closure: None } => {
                absolute(directory).map(Package::Directory)
            }
            Table { program: None, links: None, directory: None, closure: Some(list) } => {
                absolute(list).map(Package::Closure)
            }
            _ => Err(de::Error::custom(format!("expected {EXPECTED}"))),
        }
    }
}

impl<'de> Deserialize<'de> for Package {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}
