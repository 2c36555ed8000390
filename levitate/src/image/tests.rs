use std::fs;
use std::os::unix::fs::PermissionsExt;

use ramdisk::dir_sink::Owners;

use super::*;
use crate::arming::{self, Event};
use crate::build::{Request, build, write};
use crate::fixture::{BOOT_ID, CONFIG, OldSystem, static_program};
use crate::manifest::Manifest;
use crate::state::State;
use crate::status::with_sources;

const ROOM: u64 = 32 << 20;

/// An archive that was built from a root with `config`, whose root lets a builder's key in.
fn archive(config: &str, name: &str) -> (tempfile::TempDir, PathBuf) {
    let sysroot = OldSystem::new();
    sysroot.file("/etc/levitate.toml", config);
    sysroot.file("/root/.ssh/authorized_keys", "ssh-ed25519 BUILD builder\n");
    sysroot.file("/etc/big", &"x".repeat(100_000));
    sysroot.file("/etc/keys", "ssh-ed25519 LISTED builder\n");
    let request = Request { sysroot: sysroot.at("/"), config: None, levitate: None, time: 0 };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    write(&path, &build(&request).unwrap().archive).unwrap();
    (dir, path)
}

/// A device of another owner: nothing but this program and PID 1's hook is prepared on it.
fn device() -> OldSystem {
    let device = OldSystem::new();
    for name in ["/bin/busybox", "/usr/sbin/dropbear"] {
        fs::remove_file(device.at(name)).unwrap();
    }
    device
}

fn stage(device: &mut OldSystem, path: &Path) -> Result<(Manifest, Vec<Event>), String> {
    let mut image = Image::open(path, ROOM, &device.root()).map_err(|e| with_sources(&e))?;
    let config = image.config.clone();
    let facts = device.facts(&config);
    let mut events = Vec::new();
    let tell = &mut |event| events.push(event);
    let staged = arming::levitate_from(&mut image, &config, &facts, &mut device.mounts, Owners::Mine, tell);
    staged.map(|manifest| (manifest, events)).map_err(|e| with_sources(&e))
}

#[test]
fn a_device_that_was_not_prepared_is_staged_with_its_own_users_and_keys() {
    for name in ["root.cpio", "root.cpio.gz", "root.cpio.zst"] {
        let (_dir, path) = archive(CONFIG, name);
        let mut device = device();
        let (manifest, events) = stage(&mut device, &path).unwrap();
        assert_eq!((manifest.boot_id.as_str(), &manifest.users[..]), (BOOT_ID, &["root".to_owned()][..]));
        assert!(events.iter().any(|e| matches!(e, Event::Selected { users, .. } if users == &["root"])));
        let at = |name: &str| device.at("/run/maintenance").join(name);
        let text = |name: &str| fs::read_to_string(at(name)).unwrap();
        // the device's key, and nobody else's
        assert_eq!(text("root/.ssh/authorized_keys"), "ssh-ed25519 AAAA me@home\n");
        assert_eq!(text("etc/dropbear/dropbear_ed25519_host_key"), "a host key");
        assert_eq!(fs::read(at("usr/sbin/dropbear")).unwrap(), static_program());
        assert_eq!(serde_json::from_str::<Manifest>(&text("etc/levitate/manifest.json")).unwrap(), manifest);
        for (name, mode) in [
            ("etc/dropbear/dropbear_ed25519_host_key", 0o600),
            ("exec", 0o755),
            ("tmp", 0o1777),
            ("etc/shadow", 0o600),
        ] {
            assert_eq!(fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777, mode, "{name}");
        }
        let record = crate::state::read(&device.at("/persist/state.json")).unwrap().unwrap();
        assert_eq!(record.state, State::Armed);
    }
}

#[test]
fn keys_that_the_configuration_lists_come_with_the_archive() {
    let config = format!("{CONFIG}[users.root]\nauthorized_keys = \"/etc/keys\"\n");
    let (_dir, path) = archive(&config, "root.cpio");
    let mut device = device();
    stage(&mut device, &path).unwrap();
    let keys = device.at("/run/maintenance/root/.ssh/authorized_keys");
    assert_eq!(fs::read_to_string(&keys).unwrap(), "ssh-ed25519 LISTED builder\n");
    // the device's own file of that name comes first
    device.file("/etc/keys", "ssh-ed25519 OWN me\n");
    stage(&mut device, &path).unwrap();
    assert_eq!(fs::read_to_string(&keys).unwrap(), "ssh-ed25519 OWN me\n");
}

#[test]
fn where_nobody_could_log_in_nothing_stays_staged() {
    let (_dir, path) = archive(CONFIG, "root.cpio");
    let mut device = device();
    fs::remove_file(device.at("/root/.ssh/authorized_keys")).unwrap();
    let error = stage(&mut device, &path).unwrap_err();
    assert!(error.contains("user root has neither an authorized key nor a password"), "{error}");
    device.assert_nothing_staged();
    device.file("/root/.ssh/authorized_keys", "ssh-ed25519 AAAA me@home\n");
    device.file("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n");
    let error = stage(&mut device, &path).unwrap_err();
    assert!(error.contains("cannot stage the shell of user root: /bin/bash: no such program"), "{error}");
    device.assert_nothing_staged();
}

#[test]
fn too_little_memory_is_refused_before_anything_is_written() {
    let (_dir, path) = archive(&CONFIG.replace("1M", "64M"), "root.cpio");
    let mut device = device();
    let error = stage(&mut device, &path).unwrap_err();
    assert!(error.starts_with("not enough memory"), "{error}");
    device.assert_nothing_staged();
    assert!(device.mounts.asked.is_empty());
    let e = Image::open(&path, 500, &device.root()).unwrap_err();
    assert!(with_sources(&e).contains("more than 500 bytes in files"), "{e}");
    let (_dir, path) = archive(&format!("files = [\"/etc/big\"]\n{CONFIG}"), "root.cpio.gz");
    let e = Image::open(&path, 70_000, &device.root()).unwrap_err();
    assert!(with_sources(&e).contains("the archive has more than 70000 bytes"), "{}", with_sources(&e));
}

#[test]
fn what_is_none_of_ours_or_for_another_processor_or_damaged_is_refused() {
    let (dir, path) = archive(CONFIG, "root.cpio");
    let device = device();
    let refused = |path: &Path| with_sources(&Image::open(path, ROOM, &device.root()).unwrap_err());
    let other = dir.path().join("other");
    fs::write(&other, b"\x7fELF\x02\x01").unwrap();
    assert!(refused(&other).contains("expected a newc archive, plain or compressed"), "{}", refused(&other));
    let whole = fs::read(&path).unwrap();
    fs::write(&other, &whole[..whole.len() / 2]).unwrap();
    assert!(refused(&other).contains("archive, offset "), "{}", refused(&other));
    let mut bytes = Vec::new();
    ramdisk::newc::write(&ramdisk::tree::Tree::new(), 0, &mut bytes).unwrap();
    fs::write(&other, bytes).unwrap();
    assert!(refused(&other).contains("etc/levitate/manifest.json is missing"), "{}", refused(&other));
    assert!(refused(&dir.path().join("none")).starts_with("open the archive"));
    let mut mips = static_program();
    (mips[4], mips[5], mips[18], mips[19]) = (1, 2, 0, 8);
    device.program("/sbin/levitate", &mips);
    assert!(refused(&path).ends_with(
        "the archive's programs are for aarch64 (183, 64 bits, little-endian), \
         this device runs mips (8, 32 bits, big-endian)"
    ));
}
