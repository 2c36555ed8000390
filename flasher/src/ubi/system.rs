//! The kernel's UBI character devices as [`Volumes`].

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{UbiError, Volumes};
use crate::sys::ubi;
use crate::target::ubi::{UbiDevice, UbiVolume, VolumeKind, device};

/// `/dev/ubiN` and its volumes.
#[derive(Debug)]
pub struct SystemVolumes {
    root: PathBuf,
    number: u32,
    /// The volume that is being updated.
    updating: Option<(File, String)>,
    /// A volume that is kept from others, by its number.
    claimed: Option<(u32, File)>,
}

impl SystemVolumes {
    /// The UBI device `number`, with its sysfs and nodes below `root`. Nothing is opened yet.
    #[must_use]
    pub fn new(root: &Path, number: u32) -> Self {
        Self { root: root.to_owned(), number, updating: None, claimed: None }
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<File> {
        let path = self.root.join(path.strip_prefix("/").unwrap_or(path));
        OpenOptions::new().read(true).write(write).open(path)
    }

    fn on_device(
        &self,
        what: &'static str,
        on: &str,
        request: impl FnOnce(&File) -> nix::Result<()>,
    ) -> Result<(), UbiError> {
        let node = PathBuf::from(format!("/dev/ubi{}", self.number));
        let result = self.open(&node, false).and_then(|file| request(&file).map_err(io::Error::from));
        result.map_err(|source| UbiError { what, on: on.to_owned(), source })
    }
}

impl Volumes for SystemVolumes {
    fn device(&mut self) -> Result<UbiDevice, UbiError> {
        device(&self.root, self.number).ok_or_else(|| UbiError {
            what: "find",
            on: format!("ubi{}", self.number),
            source: io::ErrorKind::NotFound.into(),
        })
    }

    fn claim(&mut self, volume: &UbiVolume) -> Result<(), UbiError> {
        // Who only reads is in nobody's way, but for one who wants it to himself. Its size is asked right before: with
        // another one this would be a change.
        let now = self.device()?.volumes.into_iter().find(|now| now.number == volume.number);
        let room = now.map_or(volume.room(), |now| now.room());
        let exclusive = self
            .on_device("claim", &volume.to_string(), |file| ubi::open_exclusively(file, volume.number, room));
        if let Err(error) = exclusive
            && error.source.raw_os_error() == Some(nix::libc::EBUSY)
        {
            return Err(error);
        }
        let failed = |source| UbiError { what: "claim", on: volume.to_string(), source };
        self.claimed = Some((volume.number, self.open(&volume.node(), true).map_err(failed)?));
        Ok(())
    }

    fn make(&mut self, name: &str, like: &UbiVolume) -> Result<(), UbiError> {
        let kind = match like.kind {
            VolumeKind::Dynamic => ubi::Kind::Dynamic,
            VolumeKind::Static => ubi::Kind::Static,
        };
        self.on_device("make the volume", name, |file| {
            ubi::make(file, name, like.room(), like.alignment, kind)
        })
    }

    fn update(&mut self, volume: &UbiVolume, bytes: u64) -> Result<(), UbiError> {
        let failed = |source| UbiError { what: "update", on: volume.to_string(), source };
        // An update wants the volume to itself, and the claim's descriptor is one that counts.
        let file = match self.claimed.take_if(|(number, _)| *number == volume.number) {
            Some((_, file)) => file,
            None => self.open(&volume.node(), true).map_err(failed)?,
        };
        ubi::update(&file, bytes).map_err(|errno| failed(errno.into()))?;
        self.updating = Some((file, volume.to_string()));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), UbiError> {
        let Some((file, on)) = &mut self.updating else {
            let on = format!("ubi{}", self.number);
            return Err(UbiError { what: "write", on, source: io::Error::other("no update was begun") });
        };
        file.write_all(bytes).map_err(|source| UbiError { what: "write", on: on.clone(), source })
    }

    fn read(&mut self, volume: &UbiVolume, offset: u64, buf: &mut [u8]) -> Result<(), UbiError> {
        // The update's own descriptor keeps the volume to itself.
        self.updating = None;
        self.open(&volume.node(), false)
            .and_then(|file| file.read_exact_at(buf, offset))
            .map_err(|source| UbiError { what: "read", on: volume.to_string(), source })
    }

    fn swap(&mut self, one: &UbiVolume, other: &UbiVolume) -> Result<(), UbiError> {
        (self.updating, self.claimed) = (None, None);
        let names = [(one.number, other.name.as_str()), (other.number, one.name.as_str())];
        self.on_device("swap names with", &one.to_string(), |file| ubi::rename(file, &names))
    }

    fn remove(&mut self, volume: &UbiVolume) -> Result<(), UbiError> {
        self.updating = None;
        self.claimed.take_if(|(number, _)| *number == volume.number);
        self.on_device("remove", &volume.to_string(), |file| ubi::remove(file, volume.number))
    }
}
