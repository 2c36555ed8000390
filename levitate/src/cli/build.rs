//! `levitate build`: what it says.

use std::env;
use std::path::{Path, PathBuf};

use super::render;
use crate::budget::kib;
use crate::build::{Request, build, write};
use crate::status::with_sources;

/// Builds and writes the archive.
pub(super) fn run(
    sysroot: PathBuf,
    config: Option<PathBuf>,
    levitate: Option<PathBuf>,
    output: &Path,
) -> Result<(), String> {
    let time = time(env::var("SOURCE_DATE_EPOCH").ok().as_deref())?;
    let request = Request { sysroot, config, levitate, time };
    let built = build(&request).map_err(|e| with_sources(&e))?;
    built.warnings.iter().for_each(|warning| render::error(&format!("warning: {warning}")));
    let bytes = write(output, &built.archive).map_err(|e| with_sources(&e))?;
    render::out(&format!(
        "Wrote {} files, {} KiB, to {} ({} KiB). On the device: levitate --image FILE\n",
        built.manifest.files,
        kib(built.size.bytes),
        output.display(),
        kib(bytes)
    ));
    Ok(())
}

/// Seconds since 1970 in 32 bits, as the archive's format has them.
fn time(variable: Option<&str>) -> Result<u32, String> {
    let Some(text) = variable.filter(|text| !text.is_empty()) else { return Ok(0) };
    text.parse().map_err(|_| {
        format!("expected seconds since 1970, less than 4294967296, in SOURCE_DATE_EPOCH, found \"{text}\"")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_source_is_taken_or_none() {
        assert_eq!(time(None), Ok(0));
        assert_eq!(time(Some("")), Ok(0));
        assert_eq!(time(Some("1767225600")), Ok(1_767_225_600));
        assert!(time(Some("yesterday")).unwrap_err().contains("\"yesterday\""));
        assert!(time(Some("4294967296")).is_err());
    }
}
