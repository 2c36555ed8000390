use std::fs;
use std::os::unix::fs::PermissionsExt;

use flasher::source::{Decoded, Feed, Format};
use ramdisk::newc::{Entry, Held};

use super::*;
use crate::fixture::{CONFIG as SERVICES, OldSystem};
use crate::status::with_sources;

fn sysroot() -> OldSystem {
    let system = OldSystem::new();
    system.file(CONFIG, SERVICES);
    system
}

fn request(system: &OldSystem) -> Request {
    Request { sysroot: system.at("/"), config: None, levitate: None, time: 0 }
}

fn entries(archive: &[u8]) -> Vec<Entry> {
    let limits = Limits { entries: 1000, bytes: 1 << 20 };
    newc::scan(&mut Cursor::new(archive), &limits).unwrap()
}

#[test]
fn the_same_root_in_two_places_gives_the_same_archive() {
    let (one, two) = (sysroot(), sysroot());
    let (first, second) = (build(&request(&one)).unwrap(), build(&request(&two)).unwrap());
    assert!(first.archive == second.archive);
    let later = Request { time: 1_767_225_600, ..request(&two) };
    let later = build(&later).unwrap();
    assert_eq!(later.manifest.staged_at, 1_767_225_600);
    assert!(later.archive != first.archive);
    // nothing of where it was built is in it
    let place = one.at("/").display().to_string();
    assert!(!first.archive.windows(place.len()).any(|w| w == place.as_bytes()));
}

#[test]
fn an_archive_holds_no_host_key_no_network_and_no_boot() {
    let system = sysroot();
    system.file("/etc/hostname", "of-the-build-machine\n");
    let built = build(&request(&system)).unwrap();
    let entries = entries(&built.archive);
    let names: Vec<_> = entries.iter().map(|e| e.path.to_str().unwrap()).collect();
    for name in ["persist", "etc/dropbear", "etc/levitate/network.json", "etc/hostname", "etc/hosts"] {
        assert!(!names.contains(&name), "{name}");
    }
    for name in [
        CARRIED,
        MANIFEST,
        "bin/busybox",
        "usr/sbin/dropbear",
        "sbin/levitate",
        "etc/levitate/services/sshd/run",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    assert_eq!(built.manifest.boot_id, "");
    let find = |name: &str| entries.iter().find(|e| e.path == Path::new(name)).unwrap();
    assert_eq!(find("init").held, Held::Symlink("sbin/init".into()));
    assert_eq!((find(CARRIED).meta.mode, find("etc/shadow").meta.mode), (0o600, 0o600));
    // whoever unpacked the root, its files are root's
    assert!(entries.iter().all(|e| (e.meta.uid, e.meta.gid) == (0, 0)));
}

#[test]
fn the_links_in_a_source_directory_lead_inside_the_sysroot_and_never_to_the_build_machine() {
    let system = sysroot();
    let outside = tempfile::tempdir().unwrap();
    let of_the_build_machine = outside.path().join("number");
    fs::write(&of_the_build_machine, "7\n").unwrap();
    for (file, text) in [
        ("/etc/s6/web/type", "longrun\n"),
        ("/nix/web/start", "#!/bin/sh\nexec /bin/busybox httpd -f # of the sysroot\n"),
        ("/nix/needs/sshd", ""),
        ("/nix/end", "#!/bin/sh\n# the end\n"),
    ] {
        system.file(file, text);
    }
    for (link, target) in [
        ("/nix/current", "/nix/web"),
        ("/etc/s6/web/run", "/nix/current/start"),
        ("/etc/s6/web/finish", "../../../../../../../../../../nix/end"),
        ("/etc/s6/web/dependencies.d", "/nix/needs"),
        ("/etc/s6/web/notification-fd", of_the_build_machine.to_str().unwrap()),
        ("/srv/web", "/etc/s6/web"),
    ] {
        system.link(link, target);
    }
    system.file(CONFIG, &format!("{SERVICES}[services.web]\nsource = \"/srv/web\"\n"));
    let built = build(&request(&system)).unwrap();
    let names: Vec<_> =
        entries(&built.archive).into_iter().map(|entry| entry.path.display().to_string()).collect();
    let has = |file: &str| names.contains(&format!("etc/levitate/services/web/{file}"));
    assert!(has("run") && has("finish") && has("dependencies.d/sshd"), "{names:?}");
    assert!(!has("notification-fd"), "a file of the build machine was read");
    let says = |text: &[u8]| built.archive.windows(text.len()).any(|w| w == text);
    assert!(says(b"# of the sysroot") && says(b"# the end"));
}

#[test]
fn that_the_archive_alone_lets_nobody_in_is_a_warning_and_no_service_is_an_error() {
    let system = sysroot();
    let built = build(&request(&system)).unwrap();
    assert!(
        built
            .warnings
            .iter()
            .any(|w| w.starts_with("as an initramfs, without a device: nobody could log in")),
        "{:?}",
        built.warnings
    );
    system.file("/etc/other.toml", "packages = [\"busybox\"]\n");
    let other = Request { config: Some(system.at("/etc/other.toml")), ..request(&system) };
    assert!(with_sources(&build(&other).unwrap_err()).contains("no service is configured"));
}

#[test]
fn a_sysroot_without_the_program_the_configuration_or_itself_is_told() {
    let system = sysroot();
    let error = |request: &Request| with_sources(&build(request).unwrap_err());
    let nowhere = Request { sysroot: system.at("/no"), ..request(&system) };
    assert!(error(&nowhere).starts_with(&format!("read the sysroot {}", system.at("/no").display())));
    fs::remove_file(system.at("/sbin/levitate")).unwrap();
    assert!(error(&request(&system)).starts_with("find levitate for the device in the sysroot (or name one"));
    let named = Request { levitate: Some(system.at("/bin/busybox")), ..request(&system) };
    assert!(build(&named).is_ok());
    fs::remove_file(system.at(CONFIG)).unwrap();
    assert!(error(&named).starts_with("find the configuration in the sysroot"));
}

#[test]
fn the_file_is_compressed_as_its_name_says_and_readable_by_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let archive = vec![b'x'; 100_000];
    for (name, format) in [("a.cpio", None), ("a.cpio.gz", Some(Format::Gzip)), ("a.zst", Some(Format::Zstd))]
    {
        let path = dir.path().join(name);
        fs::write(&path, "the one before").unwrap();
        let bytes = write(&path, &archive).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), bytes);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut found = Vec::new();
        match format {
            None => found = fs::read(&path).unwrap(),
            Some(format) => {
                assert!(bytes < 1000);
                let limits = flasher::source::Limits { memory: 16 << 20 };
                let mut decoded = Decoded::new(name, format, fs::File::open(&path).unwrap(), limits);
                let mut buffer = [0; 4096];
                while let count @ 1.. = decoded.read(&mut buffer).unwrap() {
                    found.extend(&buffer[..count]);
                }
            }
        }
        assert!(found == archive, "{name}");
        let again = fs::read(&path).unwrap();
        write(&path, &archive).unwrap();
        assert!(fs::read(&path).unwrap() == again, "{name}");
    }
    let nowhere = write(&dir.path().join("no/a.cpio"), &archive).unwrap_err();
    assert!(nowhere.to_string().starts_with("write "));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}
