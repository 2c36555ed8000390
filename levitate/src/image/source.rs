//! From a file or standard input to a tree whose files are parts of the archive.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flasher::source::feed::Descriptor;
use flasher::source::{Decoded, Feed, Format, Limits as Window};
use ramdisk::newc::{self, Limits, spool};
use ramdisk::path::Root;
use ramdisk::sink::After;
use ramdisk::tree::Tree;

use super::ImageError;
use crate::build::{CARRIED, MOST_ENTRIES};
use crate::config::Config;
use crate::manifest::{MANIFEST, Manifest};
use crate::plan::LAYOUT;

/// How a newc archive begins.
const NEWC: &[u8] = b"070701";
/// More is no configuration and no manifest.
const MOST_TEXT: u64 = 1 << 20;
/// More is no `levitate`.
const MOST_PROGRAM: u64 = 64 << 20;

/// An archive that was read to its end and found to be good.
#[derive(Clone, Debug)]
pub struct Image {
    /// As it was named.
    pub path: PathBuf,
    /// What lies in it.
    pub tree: Tree,
    /// The configuration that it carries.
    pub config: Config,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Bytes of RAM that it takes until it is staged, and that staging gives back.
    pub held: u64,
}

impl Image {
    /// Reads the archive at `path`, standard input if that is `-`. What is compressed or comes from a pipe is kept in RAM,
    /// at most `most` bytes of it; more than that in files is refused in any case. `system` is the running system.
    ///
    /// # Errors
    ///
    /// It cannot be read, is refused, or was made by somebody else or for another processor.
    pub fn open(path: &Path, most: u64, system: &Root) -> Result<Self, ImageError> {
        let failed = |source| ImageError::Open { path: path.to_owned(), source };
        let (mut input, is_file): (Box<dyn Read>, bool) = if path == Path::new("-") {
            (Box::new(Descriptor::new(io::stdin().as_fd()).map_err(failed)?), false)
        } else {
            let file = File::open(path).map_err(failed)?;
            let is_file = file.metadata().map_err(failed)?.is_file();
            (Box::new(file), is_file)
        };
        let mut head = Vec::new();
        (&mut input).take(8).read_to_end(&mut head).map_err(failed)?;
        let plain = head.starts_with(NEWC);
        let format = Format::by_magic(&head);
        if !plain && format.is_none() {
            let found = head.escape_ascii().to_string();
            return Err(ImageError::Format { path: path.to_owned(), found });
        }
        let all = io::Cursor::new(head).chain(input);
        let (mut file, after) = match format {
            None if is_file => (File::open(path).map_err(failed)?, After::Keep),
            format => {
                let mut decoder: Box<dyn Read> = match format {
                    None => Box::new(all),
                    Some(format) => {
                        let name = path.display().to_string();
                        Box::new(Bytes(Decoded::new(&name, format, all, Window { memory: most })))
                    }
                };
                let kept = spool(&mut *decoder, most);
                (kept.map_err(|source| ImageError::Spool { path: path.to_owned(), source })?, After::LetGo)
            }
        };
        let limits = Limits { entries: MOST_ENTRIES, bytes: most };
        let entries = newc::scan(&mut file, &limits)
            .map_err(|source| ImageError::Refused { path: path.to_owned(), source })?;
        file.rewind().map_err(failed)?;
        let held = match after {
            After::Keep => 0,
            After::LetGo => file.metadata().map_err(failed)?.blocks() * 512,
        };
        Self::of(path, newc::tree(&entries, &Arc::new(file), after)?, held, system)
    }

    fn of(path: &Path, tree: Tree, held: u64, system: &Root) -> Result<Self, ImageError> {
        let not_ours = |what: String| ImageError::NotOurs { path: path.to_owned(), what };
        let text = |name: &str| {
            let bytes = tree.read(Path::new(name), MOST_TEXT)?;
            let text = bytes.ok_or_else(|| not_ours(format!("{name} is missing")))?;
            String::from_utf8(text).map_err(|_| not_ours(format!("{name} is no text")))
        };
        let manifest: Manifest = serde_json::from_str(&text(MANIFEST)?)
            .map_err(|e| not_ours(format!("{MANIFEST} cannot be read: {e}")))?;
        if manifest.version != LAYOUT {
            let version = manifest.version;
            return Err(not_ours(format!("its layout is {version}, this levitate knows {LAYOUT}")));
        }
        let carried = text(CARRIED)?;
        let config = Config::parse(&Path::new("/").join(CARRIED), &carried)?;
        let program = tree.read(Path::new("sbin/levitate"), MOST_PROGRAM)?;
        let program = program.ok_or_else(|| not_ours("sbin/levitate is missing".to_owned()))?;
        let own = system.dir().join("proc/self/exe");
        let own = fs::read(&own).map_err(|source| ImageError::Io { what: "read", path: own, source })?;
        let (theirs, ours) = (processor(&program), processor(&own));
        if theirs != ours {
            return Err(ImageError::Processor { path: path.to_owned(), theirs, ours });
        }
        Ok(Self { path: path.to_owned(), tree, config, manifest, held })
    }
}

/// What an ELF file runs on: its class, its byte order, and the kernel's number of the processor (`e_machine`).
fn processor(elf: &[u8]) -> String {
    let name = |machine: u16| match machine {
        3 => "i386",
        8 => "mips",
        20 | 21 => "powerpc",
        40 => "arm",
        62 => "x86-64",
        183 => "aarch64",
        243 => "riscv",
        _ => "another processor",
    };
    let (Some(b"\x7fELF"), Some(&class), Some(&order), Some(&[a, b])) =
        (elf.get(..4), elf.get(4), elf.get(5), elf.get(18..20))
    else {
        return "no processor (it is no ELF file)".to_owned();
    };
    let machine = if order == 2 { u16::from_be_bytes([a, b]) } else { u16::from_le_bytes([a, b]) };
    let bits = if class == 2 { 64 } else { 32 };
    let order = if order == 2 { "big" } else { "little" };
    format!("{} ({machine}, {bits} bits, {order}-endian)", name(machine))
}

/// A decoder as a plain reader.
struct Bytes(Decoded);

impl Read for Bytes {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() { Ok(0) } else { self.0.read(buf).map_err(io::Error::other) }
    }
}
