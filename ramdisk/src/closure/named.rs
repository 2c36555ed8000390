//! Libraries that no file says it needs: programs open them by name while they run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::elf::{Elf, Kind, Program};
use super::search::{self, Linker, Place};
use super::{Closure, ClosureError, Closures, Found, Object};
use crate::path::{PathError, Root};

/// The C library whose modules they are.
const GLIBC: &str = "libc.so.6";

/// What becomes of a library that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is an error.
    Refuse,
    /// It is passed over, and so is one that the C library has built in: the file of that name is an empty one.
    PassOver,
}

/// A processor and a C library: what a library must fit to be loaded.
#[derive(PartialEq, Eq)]
struct World {
    kind: Kind,
    linker: Linker,
}

impl Closure {
    /// Finds libraries that programs open by name while they run (NSS and PAM modules, plugins), and what these need.
    /// `like` are programs that may open them: for their processors, by the rules of their C library. A name without a
    /// slash is looked up where the dynamic linker would, and in the directory `security` there, where PAM looks.
    ///
    /// # Errors
    ///
    /// A library that is not there for any of the programs, or that needs another which is missing; a program in `like`
    /// that cannot be read.
    pub fn libraries(
        root: &Root,
        like: &[PathBuf],
        names: &[String],
        missing: Missing,
    ) -> Result<Self, ClosureError> {
        Closures::of(root, &[])?.libraries(like, names, missing)
    }
}

impl Closures<'_> {
    /// As [`Closure::libraries`].
    ///
    /// # Errors
    ///
    /// As [`Closure::libraries`].
    pub fn libraries(
        &mut self,
        like: &[PathBuf],
        names: &[String],
        missing: Missing,
    ) -> Result<Closure, ClosureError> {
        self.closure = Closure::default();
        let worlds = self.worlds(like)?;
        for name in names {
            if !self.named_library(&worlds, name, missing)? && missing == Missing::Refuse {
                let places = worlds.iter().flat_map(|world| self.places_of_names(world));
                let searched = places.map(|place| place.directory).collect();
                return Err(ClosureError::NoNamedLibrary { library: name.clone(), searched });
            }
        }
        Ok(std::mem::take(&mut self.closure))
    }

    /// The processors and C libraries of those programs that can load anything.
    fn worlds(&mut self, programs: &[PathBuf]) -> Result<Vec<World>, ClosureError> {
        let mut worlds: Vec<World> = Vec::new();
        for program in programs {
            let Some(found) = self.find(program)? else { continue };
            let Program::Elf(elf) = self.parse(&found.real)? else { continue };
            let Some(asked) = &elf.interpreter else { continue };
            let asked = Path::new(asked);
            let Some(interpreter) = self.find(asked)? else { continue };
            let world = World {
                kind: elf.kind,
                linker: search::linker(self.root, Some((asked, &interpreter.real)))?,
            };
            // One processor can have two C libraries beside each other.
            if !worlds.contains(&world) {
                worlds.push(world);
            }
        }
        Ok(worlds)
    }

    /// Where a library that is opened by name is looked for.
    fn places_of_names(&self, world: &World) -> Vec<Place> {
        let nobody = Elf {
            kind: world.kind,
            interpreter: None,
            needed: Vec::new(),
            rpath: Vec::new(),
            runpath: Vec::new(),
            names: 0..0,
        };
        let mut places = self.search.places(self.root, &world.linker, Path::new("/"), &nobody, &[]);
        let security =
            |place: &Place| Place { directory: place.directory.join("security"), from_conf: false };
        let more: Vec<Place> = places.iter().map(security).collect();
        places.extend(more.into_iter().filter(|place| self.root.resolve(&place.directory).is_ok()));
        places
    }

    /// Takes the library, and what it needs, for each world that has it. Whether one has.
    fn named_library(
        &mut self,
        worlds: &[World],
        name: &str,
        missing: Missing,
    ) -> Result<bool, ClosureError> {
        let mut found_one = false;
        for world in worlds {
            let is_glibcs = matches!(world.linker, Linker::Glibc { .. });
            if missing == Missing::PassOver && !is_glibcs {
                continue;
            }
            let places = self.places_of_names(world);
            if missing == Missing::PassOver && self.is_built_in(name, &places, world.kind)? {
                continue;
            }
            if let Some(Found { path, elf }) = self.library(name, &places, world.kind)? {
                found_one = true;
                let object = Object { path: path.clone(), elf, inherited: Vec::new() };
                self.needed(&path, object, &world.linker, BTreeSet::new())?;
            }
        }
        Ok(found_one)
    }

    /// Whether the C library does itself what the NSS module `library` is for. glibc has done so for `files` and `dns`
    /// since 2.34 and exports their functions, `_nss_NAME_get...`; Debian 12's modules of these names export nothing.
    fn is_built_in(&mut self, library: &str, places: &[Place], kind: Kind) -> Result<bool, ClosureError> {
        let Some(name) = library.strip_prefix("libnss_").and_then(|rest| rest.split('.').next()) else {
            return Ok(false);
        };
        let wanted = format!("_nss_{name}_get");
        for place in places {
            let Some((found, elf)) = self.loadable(&place.directory.join(GLIBC), kind)? else { continue };
            let failed = |source| PathError::Io { path: self.root.host(&found.real), source };
            let names = elf.names(&self.root.host(&found.real)).map_err(failed)?;
            return Ok(names.split(|b| *b == 0).any(|symbol| symbol.starts_with(wanted.as_bytes())));
        }
        Ok(false)
    }
}
