//! The file that names several images and where they go.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One image of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The partition: `/dev/mtdN`, `mtdN` or `mtd:NAME`.
    pub partition: String,
    /// The image's file.
    pub image: PathBuf,
    /// Its SHA-256 in lower-case hexadecimal, if the plan says.
    pub sha256: Option<String>,
}

/// Why a plan cannot be used. Nothing was looked at yet but the plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It could not be read.
    #[error("cannot read the plan {}: {source}", path.display())]
    Read {
        /// The plan's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is larger than any plan.
    #[error("the plan {} has more than {most} bytes", path.display())]
    TooLarge {
        /// The plan's file.
        path: PathBuf,
        /// The most there may be.
        most: u64,
    },
    /// It is not what a plan is.
    #[error("the plan {} is wrong: {what}", path.display())]
    Wrong {
        /// The plan's file.
        path: PathBuf,
        /// Where, and why.
        what: String,
    },
}

/// A plan is a few lines for each image.
const MOST: u64 = 64 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    flash: Vec<Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    partition: String,
    image: PathBuf,
    sha256: Option<String>,
    #[serde(default)]
    order: i64,
}

/// The images of a plan in the order in which they are to be written: lower `order` first (0 where none is said), and
/// as they stand in the file where it is the same. Images are relative to `directory`.
///
/// # Errors
/// What is wrong, for [`PlanError::Wrong`].
pub fn parse(text: &str, directory: &Path) -> Result<Vec<Entry>, String> {
    let mut file: File = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
    if file.flash.is_empty() {
        return Err("it names no image".to_owned());
    }
    file.flash.sort_by_key(|table| table.order);
    let entries = file.flash.into_iter().map(|table| {
        let Table { partition, image, sha256, .. } = table;
        if partition.is_empty() || image.as_os_str().is_empty() {
            return Err("a partition or an image has no name".to_owned());
        }
        let is_digest = |text: &String| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match sha256 {
            Some(text) if !is_digest(&text) => {
                Err(format!("the sha256 of {} is not 64 hexadecimal digits", image.display()))
            }
            sha256 => Ok(Entry {
                partition,
                image: directory.join(image),
                sha256: sha256.map(|text| text.to_ascii_lowercase()),
            }),
        }
    });
    entries.collect()
}

/// Reads a plan.
///
/// # Errors
/// [`PlanError`].
pub fn read(path: &Path) -> Result<Vec<Entry>, PlanError> {
    let failed = |source| PlanError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, MOST + 1), &mut text).map_err(failed)?;
    if text.len() as u64 > MOST {
        return Err(PlanError::TooLarge { path: path.to_owned(), most: MOST });
    }
    let directory = path.parent().unwrap_or(Path::new(""));
    parse(&text, directory).map_err(|what| PlanError::Wrong { path: path.to_owned(), what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        parse(text, Path::new("/up")).unwrap_err()
    }

    #[test]
    fn a_plan_is_written_in_its_order_and_images_lie_beside_it() {
        let digest = "AB".repeat(32);
        let text = format!(
            "[[flash]]\npartition = \"mtd:b\"\nimage = \"b.bin\"\norder = 2\n\
             [[flash]]\npartition = \"mtd3\"\nimage = \"/abs/c.xz\"\norder = 2\n\
             [[flash]]\npartition = \"mtd:a\"\nimage = \"sub/a.bin\"\nsha256 = \"{digest}\"\n"
        );
        let entry = |partition: &str, image: &str, sha256: Option<&str>| Entry {
            partition: partition.to_owned(),
            image: image.into(),
            sha256: sha256.map(str::to_owned),
        };
        assert_eq!(
            parse(&text, Path::new("/up")).unwrap(),
            [
                entry("mtd:a", "/up/sub/a.bin", Some(&"ab".repeat(32))),
                entry("mtd:b", "/up/b.bin", None),
                entry("mtd3", "/abs/c.xz", None),
            ]
        );
    }

    #[test]
    fn a_wrong_plan_is_refused_with_what_is_wrong() {
        assert!(wrong("").contains("missing field `flash`"), "{}", wrong(""));
        assert_eq!(wrong("flash = []"), "it names no image");
        let table = |more: &str| format!("[[flash]]\npartition = \"mtd0\"\n{more}\n");
        assert!(wrong(&table("")).contains("missing field `image`"));
        assert!(wrong(&table("image = \"a\"\nsha265 = \"\"")).contains("unknown field `sha265`"));
        assert!(wrong(&table("image = \"a\"\norder = \"x\"")).contains("line 4"), "the place is named");
        assert_eq!(wrong(&table("image = \"\"")), "a partition or an image has no name");
        assert_eq!(
            wrong(&table("image = \"a.bin\"\nsha256 = \"12\"")),
            "the sha256 of a.bin is not 64 hexadecimal digits"
        );
    }

    #[test]
    fn a_file_that_is_no_plan_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("up.toml");
        let error = || read(&path).unwrap_err().to_string();
        let name = path.display();
        assert_eq!(error(), format!("cannot read the plan {name}: No such file or directory (os error 2)"));
        std::fs::write(&path, "#".repeat(70_000)).unwrap();
        assert_eq!(error(), format!("the plan {name} has more than 65536 bytes"));
        std::fs::write(&path, "flash = []").unwrap();
        assert_eq!(error(), format!("the plan {name} is wrong: it names no image"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd_to_be_a_plan(text in "([a-z\\[\\]\"=. \n]|flash|partition|image|sha256|order){0,60}") {
            let _ = parse(&text, Path::new("/up"));
        }
    }
}
