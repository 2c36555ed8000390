//! What is staged, in both ways, and what one round of each costs.

use crate::line;
use crate::machine::Machine;
use crate::suite::Failure;

/// Something to stage.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// Paths for `cp -a`, as a shell expands them.
    paths: &'static str,
    /// `packages` of levitate's configuration, which do the same job.
    packages: &'static str,
    /// What ours may be of theirs; none: never slower, and the needed files' bytes with a little more.
    pub(super) ratio: Option<f64>,
}

/// The applets' links go with busybox in both ways.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "stage 5 MB",
        paths: "/usr/bin/busybox $applets /usr/sbin/dropbear /usr/sbin/flashcp.mtd-utils /usr/sbin/flash_erase \
                $lib/ld-linux-aarch64.so.1 /usr/lib/ld-linux-aarch64.so.1 $lib/libc.so.6 $lib/libcrypt.so.1* \
                $lib/libgmp.so.10* $lib/libtomcrypt.so.1* $lib/libtommath.so.1* $lib/libz.so.1*",
        packages: r#"{ program = "/bin/busybox", links = true }, "/usr/sbin/dropbear", "/usr/sbin/flash_erase""#,
        ratio: None,
    },
    Case {
        name: "stage whole packages",
        // busybox-static, dropbear-bin, mtd-utils; libc6, libcrypt1, libgmp10, libtomcrypt1, libtommath1, zlib1g
        paths: "/usr/bin/busybox $applets /usr/sbin/dropbear /usr/bin/dbclient /usr/bin/dropbearconvert \
                /usr/bin/dropbearkey /usr/sbin/doc* /usr/sbin/flash* /usr/sbin/ftl* /usr/sbin/jffs2* \
                /usr/sbin/mkfs.jffs2 /usr/sbin/mtd* /usr/sbin/nand* /usr/sbin/rfd* \
                /usr/sbin/serve_image /usr/sbin/sumtool /usr/sbin/ubi* /usr/lib/ld-linux-aarch64.so.1 $lib/gconv \
                $lib/ld-linux* $lib/libBrokenLocale* $lib/libanl* $lib/libc.so* $lib/libc_malloc* $lib/libdl* \
                $lib/libm.so* $lib/libmemusage* $lib/libmvec* $lib/libnsl* $lib/libnss_* $lib/libpcprofile* \
                $lib/libpthread* $lib/libresolv* $lib/librt* $lib/libthread_db* $lib/libutil* $lib/libcrypt.so* \
                $lib/libgmp* $lib/libtomcrypt* $lib/libtommath* $lib/libz.so*",
        packages: r#"{ program = "/bin/busybox", links = true }, "/usr/sbin/dropbear", "/usr/sbin/flash_erase",
                     "/usr/sbin/nandwrite", "/usr/sbin/nanddump", "/usr/sbin/mtdinfo", "/usr/sbin/ubiattach",
                     "/usr/sbin/ubidetach", "/usr/sbin/ubiformat", "/usr/sbin/ubiupdatevol""#,
        ratio: Some(0.5),
    },
];

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    pub(super) seconds: f64,
    /// Bytes in file systems in RAM, more than before.
    pub(super) bytes: f64,
}

/// The manual's way: each path to its place in the new root. Directories on the way are made once.
const COPY: &str = r#"#!/bin/sh
to=/run/manual
mkdir $to
for path in $(cat /tmp/paths); do
	directory=${path%/*}
	[ -d "$to$directory" ] || mkdir -p "$to$directory"
	cp -a "$path" "$to$path"
done
"#;

/// Runs a command with cold caches, and says what it took in seconds and KiB.
const MEASURE: &str = r#"#!/bin/sh
shmem() { sed -n 's/^Shmem: *\([0-9]*\) kB/\1/p' /proc/meminfo; }
sync
echo 3 >/proc/sys/vm/drop_caches
sleep 1
before=$(shmem)
read a _ </proc/uptime
"$@" >/tmp/said 2>&1
code=$?
read b _ </proc/uptime
echo $a $b $before $(shmem) $code
[ $code = 0 ] || cat /tmp/said
"#;

/// Puts scripts, list and configuration of a case onto the device.
pub(super) fn prepare(machine: &Machine, case: &Case) -> Result<(), Failure> {
    let put = |path: &str, text: &str| {
        machine.ssh.succeed(&format!("cat > {path} <<'END-OF-FILE'\n{text}\nEND-OF-FILE\nchmod +x {path}"))
    };
    put("/tmp/copy", COPY)?;
    put("/tmp/measure", MEASURE)?;
    put("/tmp/bench.toml", &config(case))?;
    let list = format!(
        "lib=/usr/lib/aarch64-linux-gnu; \
         applets=$(find /usr/bin /usr/sbin -type l | while read l; do \
           [ \"$(readlink $l)\" = busybox ] && echo $l; done; true); \
         ls -d {} > /tmp/paths 2>/dev/null; test -s /tmp/paths",
        case.paths
    );
    machine.ssh.succeed(&list).map(drop)
}

fn config(case: &Case) -> String {
    format!(
        "packages = [{}]\nreserve = \"64M\"\n[services.sshd]\nrun = [\"/usr/sbin/dropbear\", \"-F\", \"-E\", \"-s\", \
         \"-r\", \"/persist/dropbear/dropbear_ed25519_host_key\"]\n[keep]\nhost_keys = \
         [\"/persist/dropbear/dropbear_ed25519_host_key\"]\n",
        case.packages
    )
}

/// One round of ours.
pub(super) fn levitate(machine: &Machine) -> Result<Round, Failure> {
    let round = measure(machine, "levitate --config /tmp/bench.toml")?;
    machine.ssh.succeed("levitate abort --config /tmp/bench.toml")?;
    Ok(round)
}

/// One round of the manual's.
pub(super) fn copy(machine: &Machine) -> Result<Round, Failure> {
    let round = measure(machine, "/tmp/copy")?;
    machine.ssh.succeed("rm -r /run/manual")?;
    Ok(round)
}

/// Bytes of the files that the manual's way copies.
pub(super) fn needed(machine: &Machine) -> Result<u64, Failure> {
    let command =
        "for p in $(cat /tmp/paths); do [ -h $p ] || stat -c %s $p; done | awk '{ s += $1 } END { print s }'";
    machine.ssh.succeed(command)?.parse().map_err(Failure::harness)
}

fn measure(machine: &Machine, command: &str) -> Result<Round, Failure> {
    let said = machine.ssh.succeed_for(&format!("/tmp/measure {command}"), line::STAGE)?;
    let (numbers, rest) = said.split_once('\n').unwrap_or((&said, ""));
    let numbers: Vec<f64> = numbers.split(' ').filter_map(|number| number.parse().ok()).collect();
    match numbers[..] {
        [begun, ended, before, after, 0.0] => {
            Ok(Round { seconds: ended - begun, bytes: (after - before) * 1024.0 })
        }
        _ => Err(Failure::test(format!("`{command}`: {numbers:?} {rest}"))),
    }
}
