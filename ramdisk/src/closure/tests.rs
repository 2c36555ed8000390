use std::fs::Permissions;
use std::os::unix::fs::symlink;

use super::elf::Kind;
use super::fixture::{ElfBuilder, MIPS, aarch64};
use super::*;

const LD: &str = "/lib/ld-linux-aarch64.so.1";

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.dir.path().join(name.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    fn resolve(&self, program: &str) -> Result<Closure, ClosureError> {
        let path = [PathBuf::from("/sbin"), PathBuf::from("/bin")];
        Closure::resolve(&Root::new(self.dir.path()), &[program.into()], &path)
    }

    fn files(&self, program: &str) -> Vec<String> {
        let closure = self.resolve(program).unwrap();
        closure.files.iter().map(|f| f.display().to_string()).collect()
    }

    fn error(&self, program: &str) -> String {
        self.resolve(program).unwrap_err().to_string()
    }

    /// A root as Debian has it: merged /usr, libraries in the multiarch directory, another architecture beside it.
    fn debian() -> Self {
        let root = Self::new();
        let multiarch = "/usr/lib/aarch64-linux-gnu";
        root.put("/bin/tool", &aarch64(Some(LD), &["libz.so.1", "libc.so.6"]).build());
        root.put(&format!("{multiarch}/libz.so.1.2.13"), &aarch64(None, &["libc.so.6"]).build());
        root.put(&format!("{multiarch}/libc.so.6"), &aarch64(None, &["ld-linux-aarch64.so.1"]).build());
        root.put(&format!("{multiarch}/ld-2.36.so"), &aarch64(None, &[]).build());
        let mips = ElfBuilder::new(Kind { is_64: false, is_big_endian: true, machine: MIPS }).build();
        root.put("/usr/lib/a-linux-mips/libz.so.1", &mips);
        let link = |target: &str, at: &str| symlink(target, root.dir.path().join(at)).unwrap();
        link("usr/lib", "lib");
        link("libz.so.1.2.13", "usr/lib/aarch64-linux-gnu/libz.so.1");
        link("aarch64-linux-gnu/ld-2.36.so", "usr/lib/ld-linux-aarch64.so.1");
        root
    }
}

#[test]
fn libraries_are_found_transitively_in_debians_directories_and_only_those_for_the_same_processor() {
    let root = Fixture::debian();
    let closure = root.resolve("/bin/tool").unwrap();
    let files: Vec<_> = closure.files.iter().map(|f| f.to_str().unwrap()).collect();
    let multiarch = "/usr/lib/aarch64-linux-gnu";
    assert_eq!(
        files,
        [
            "/bin/tool",
            &format!("{multiarch}/ld-2.36.so"),
            &format!("{multiarch}/libc.so.6"),
            &format!("{multiarch}/libz.so.1.2.13")
        ]
    );
    let links: Vec<_> = closure.links.iter().map(|l| l.at.to_str().unwrap()).collect();
    let expected = ["/lib", "/usr/lib/aarch64-linux-gnu/libz.so.1", "/usr/lib/ld-linux-aarch64.so.1"];
    assert_eq!(links, expected);
}

#[test]
fn a_missing_library_is_named_with_who_needs_it_and_where_it_was_searched() {
    let root = Fixture::debian();
    fs::remove_file(root.dir.path().join("usr/lib/aarch64-linux-gnu/libz.so.1.2.13")).unwrap();
    let text = root.error("/bin/tool");
    let start =
        "/bin/tool: library libz.so.1, needed by /bin/tool, not found in /usr/lib/aarch64-linux-gnu, ";
    assert!(text.starts_with(start), "{text}");
    root.put("/usr/lib/libz.so.1", &aarch64(None, &["libdeep.so.2"]).build());
    let text = root.error("/bin/tool");
    let start = "/bin/tool: library libdeep.so.2, needed by /lib/libz.so.1, not found in ";
    assert!(text.starts_with(start), "{text}");
}

#[test]
fn a_missing_program_interpreter_or_shell_is_named() {
    let root = Fixture::new();
    assert_eq!(root.error("/bin/none"), "/bin/none: no such program");
    root.put("/bin/tool", &aarch64(Some(LD), &[]).build());
    assert_eq!(root.error("/bin/tool"), format!("/bin/tool: its dynamic linker {LD} does not exist"));
    root.put("/bin/script", b"#!/bin/bash -e\n");
    assert_eq!(root.error("/bin/script"), "/bin/bash: no such program (needed by /bin/script)");
    root.put("/bin/by-env", b"#!/usr/bin/env -S python3 -u\n");
    root.put("/usr/bin/env", &aarch64(None, &[]).build());
    assert_eq!(root.error("/bin/by-env"), "python3: no such program in /sbin, /bin (needed by /bin/by-env)");
    root.put("/bin/text", b"just text");
    let text = root.error("/bin/text");
    assert_eq!(text, "/bin/text: expected a program, found neither ELF nor a script with #!");
    root.put("/bin/loop", b"#!/bin/loop\n");
    assert_eq!(root.error("/bin/loop"), "/bin/loop: more than 5 scripts interpret each other");
}

#[test]
fn runpath_rpath_and_ld_so_conf_are_followed_in_the_linkers_order() {
    let root = Fixture::new();
    let library = || aarch64(None, &[]).build();
    root.put(LD, &library());
    let tool = |b: ElfBuilder| root.put("/opt/bin/tool", &b.build());
    for place in ["/opt/run", "/opt/r", "/opt/conf", "/lib"] {
        root.put(&format!("{place}/liba.so"), &library());
    }
    root.put("/etc/ld.so.conf", b"/opt/conf\n");
    root.put("/etc/ld.so.cache", b"cache");
    let asks = || aarch64(Some(LD), &["liba.so"]);
    tool(asks().rpath("/opt/r").runpath("$ORIGIN/../run"));
    assert_eq!(root.files("/opt/bin/tool"), [LD, "/opt/bin/tool", "/opt/run/liba.so"]);
    tool(asks().rpath("/opt/r"));
    assert_eq!(root.files("/opt/bin/tool"), [LD, "/opt/bin/tool", "/opt/r/liba.so"]);
    tool(asks());
    let found = root.files("/opt/bin/tool");
    assert_eq!(found, ["/etc/ld.so.cache", LD, "/opt/bin/tool", "/opt/conf/liba.so"]);
    fs::remove_file(root.dir.path().join("etc/ld.so.conf")).unwrap();
    assert_eq!(root.files("/opt/bin/tool"), [LD, "/lib/liba.so", "/opt/bin/tool"]);
}

#[test]
fn an_rpath_is_inherited_by_the_libraries_and_a_runpath_is_not() {
    let root = Fixture::new();
    root.put(LD, &aarch64(None, &[]).build());
    root.put("/opt/liba.so", &aarch64(None, &["libb.so"]).build());
    root.put("/opt/libb.so", &aarch64(None, &[]).build());
    root.put("/bin/tool", &aarch64(Some(LD), &["liba.so"]).rpath("/opt").build());
    assert_eq!(root.files("/bin/tool").len(), 4);
    root.put("/bin/tool", &aarch64(Some(LD), &["liba.so"]).runpath("/opt").build());
    assert!(root.error("/bin/tool").contains("library libb.so, needed by /opt/liba.so"));
}

#[test]
fn musls_own_libraries_are_not_looked_for() {
    let root = Fixture::new();
    let ld = "/lib/ld-musl-aarch64.so.1";
    root.put(ld, &aarch64(None, &[]).build());
    root.put("/usr/lib/libz.so.1", &aarch64(None, &["libc.so"]).build());
    root.put("/bin/tool", &aarch64(Some(ld), &["libc.musl-aarch64.so.1", "libz.so.1"]).build());
    assert_eq!(root.files("/bin/tool"), ["/bin/tool", ld, "/usr/lib/libz.so.1"]);
}

#[test]
fn the_closure_of_a_real_shell_holds_the_shell_and_what_the_kernel_would_load() {
    let closure = Closure::resolve(&Root::new("/"), &["/bin/sh".into()], &[]).unwrap();
    let real = fs::canonicalize("/bin/sh").unwrap();
    assert!(closure.files.contains(&real), "{closure:?}");
    if let Program::Elf(elf) = elf::read(&real).unwrap() {
        let interpreter = elf.interpreter.map(|i| fs::canonicalize(i).unwrap());
        assert!(interpreter.is_none_or(|i| closure.files.contains(&i)), "{closure:?}");
        assert!(closure.files.len() > elf.needed.len(), "{closure:?}");
    }
}

#[test]
fn a_name_without_a_slash_is_the_first_executable_of_that_name() {
    let root = Fixture::new();
    root.put("/bin/tool", b"#!/bin/sh\n");
    root.put("/sbin/tool", b"not executable");
    fs::set_permissions(root.dir.path().join("sbin/tool"), Permissions::from_mode(0o644)).unwrap();
    let path = ["/sbin", "/bin"].map(PathBuf::from);
    let here = Root::new(root.dir.path());
    assert_eq!(find_program(&here, "tool", &path).unwrap(), Path::new("/bin/tool"));
    let e = find_program(&here, "wombat", &path).unwrap_err();
    assert_eq!(e.to_string(), "wombat: no such program in /sbin, /bin");
}

#[test]
fn a_library_that_is_opened_by_name_comes_with_what_it_needs_pam_modules_from_their_own_directory() {
    let root = Fixture::debian();
    let multiarch = "/usr/lib/aarch64-linux-gnu";
    root.put(&format!("{multiarch}/security/pam_unix.so"), &aarch64(None, &["libcrypt.so.1"]).build());
    root.put(&format!("{multiarch}/libcrypt.so.1"), &aarch64(None, &["libc.so.6"]).build());
    root.put("/opt/plugin.so", &aarch64(None, &[]).build());
    let libraries = |names: &[&str], missing| {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        Closure::libraries(&Root::new(root.dir.path()), &["/bin/tool".into()], &names, missing)
    };
    let found = libraries(&["pam_unix.so", "/opt/plugin.so"], Missing::Refuse).unwrap();
    let files: Vec<_> = found.files.iter().map(|f| f.to_str().unwrap()).collect();
    let names = ["ld-2.36.so", "libc.so.6", "libcrypt.so.1", "security/pam_unix.so"];
    let mut expected = vec!["/opt/plugin.so".to_owned()];
    expected.extend(names.iter().map(|name| format!("{multiarch}/{name}")));
    assert_eq!(files, expected);

    let e = libraries(&["libnss_ldap.so.2"], Missing::Refuse).unwrap_err().to_string();
    assert!(e.starts_with(&format!("library libnss_ldap.so.2: not found in {multiarch}, ")), "{e}");
    assert_eq!(libraries(&["libnss_files.so.2"], Missing::PassOver).unwrap(), Closure::default());
    fs::remove_file(root.dir.path().join("usr/lib/aarch64-linux-gnu/libcrypt.so.1")).unwrap();
    let e = libraries(&["pam_unix.so"], Missing::Refuse).unwrap_err().to_string();
    assert!(e.contains("library libcrypt.so.1, needed by "), "{e}");
}

#[test]
fn a_module_that_the_c_library_has_built_in_is_not_carried_along() {
    let root = Fixture::debian();
    let multiarch = "/usr/lib/aarch64-linux-gnu";
    for name in ["files", "dns", "compat"] {
        root.put(&format!("{multiarch}/libnss_{name}.so.2"), &aarch64(None, &[]).build());
    }
    let modules = |missing| {
        let names = ["files", "dns", "compat"].map(|name| format!("libnss_{name}.so.2"));
        let found = Closure::libraries(&Root::new(root.dir.path()), &["/bin/tool".into()], &names, missing);
        let files = found.unwrap().files;
        files.iter().map(|f| f.file_name().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = ["libnss_compat.so.2", "libnss_dns.so.2", "libnss_files.so.2"];
    assert_eq!(modules(Missing::PassOver), all, "an old one has none built in");
    // names as in Debian 12; what only begins like one is another's
    let exports =
        ["_nss_files_getpwent_r", "_nss_dns_gethostbyname_r", "__nss_compat_getpwent_r", "_nss_compat"];
    root.put(&format!("{multiarch}/libc.so.6"), &aarch64(None, &[]).exports(&exports).build());
    assert_eq!(modules(Missing::PassOver), ["libnss_compat.so.2"]);
    assert_eq!(modules(Missing::Refuse), all, "whoever lists them gets them");
}

#[test]
fn a_library_that_is_opened_by_name_is_found_for_each_c_library_of_one_processor() {
    let root = Fixture::debian();
    let musl = "/lib/ld-musl-aarch64.so.1";
    root.put(musl, &aarch64(None, &[]).build());
    root.put("/bin/small", &aarch64(Some(musl), &[]).build());
    root.put("/usr/local/lib/plugin.so", &aarch64(None, &[]).build());
    root.put("/usr/lib/aarch64-linux-gnu/plugin.so", &aarch64(None, &[]).build());
    let like = ["/bin/tool".into(), "/bin/small".into()];
    let found =
        Closure::libraries(&Root::new(root.dir.path()), &like, &["plugin.so".into()], Missing::Refuse);
    let files: Vec<_> = found.unwrap().files.into_iter().collect();
    let expected = ["/usr/lib/aarch64-linux-gnu/plugin.so", "/usr/local/lib/plugin.so"].map(PathBuf::from);
    assert_eq!(files, expected);
}

#[test]
fn where_the_linkers_cache_is_used_the_variants_for_better_processors_come_along() {
    let root = Fixture::new();
    let library = || aarch64(None, &[]).build();
    root.put(LD, &library());
    root.put("/opt/conf/liba.so", &library());
    root.put("/opt/conf/glibc-hwcaps/power9/liba.so", b"not even ELF");
    root.put("/opt/conf/glibc-hwcaps/v9/liba.so", &library());
    root.put("/lib/glibc-hwcaps/v9/libb.so", &library());
    root.put("/etc/ld.so.conf", b"/opt/conf\n");
    root.put("/etc/ld.so.cache", b"cache");
    root.put("/bin/tool", &aarch64(Some(LD), &["liba.so"]).build());
    let variant = "/opt/conf/glibc-hwcaps/v9/liba.so";
    assert_eq!(root.files("/bin/tool"), ["/bin/tool", "/etc/ld.so.cache", LD, variant, "/opt/conf/liba.so"]);
    // one that only a better processor has
    root.put("/bin/tool", &aarch64(Some(LD), &["libb.so"]).build());
    assert_eq!(root.files("/bin/tool"), ["/bin/tool", "/lib/glibc-hwcaps/v9/libb.so", LD]);
}

#[test]
fn a_foreign_root_is_searched_by_its_own_rules_whatever_processor_this_is() {
    let root = Fixture::new();
    let mips = Kind { is_64: false, is_big_endian: true, machine: MIPS };
    let build = |interpreter: Option<&str>, needed: &[&str]| {
        let builder = ElfBuilder::new(mips).needed(needed);
        interpreter.map_or(builder, |name| ElfBuilder::new(mips).needed(needed).interpreter(name)).build()
    };
    let ld = "/lib/ld-musl-mips-sf.so.1";
    root.put(ld, &build(None, &[]));
    root.put("/etc/ld-musl-mips-sf.path", b"/usr/lib/here\n");
    root.put("/usr/lib/here/libz.so", &build(None, &[]));
    root.put("/bin/tool", &build(Some(ld), &["libz.so", "libc.so"]));
    // an absolute link of that root does not lead into this one
    symlink("/bin/tool", root.dir.path().join("bin/link")).unwrap();
    root.put("/bin/script", b"#!/bin/link\n");
    assert_eq!(
        root.files("/bin/script"),
        ["/bin/script", "/bin/tool", "/etc/ld-musl-mips-sf.path", ld, "/usr/lib/here/libz.so"]
    );
}
