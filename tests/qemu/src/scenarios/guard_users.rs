//! Every kind of user of flash that the guard knows, on a real kernel: each is refused with its name, and allowed again
//! when it is gone.

use super::minutes;
use crate::assets::Assets;
use crate::boards::ast2600::{CHIP, KERNEL};
use crate::check::check;
use crate::firmware::ast2600::{LOAD_MORE, NANDSIM, Rescue};
use crate::line;
use crate::machine::Machine;
use crate::process;
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "every_kind_of_user_of_flash_is_refused_with_its_name_and_allowed_when_it_is_gone",
    board: Board::Ast2600,
    limit: minutes(6),
    run,
}];

/// One kind of user.
struct User {
    /// What it is.
    what: &'static str,
    /// Makes it.
    make: &'static str,
    /// What flashcp is asked to write.
    target: &'static str,
    /// What the refusal says.
    says: &'static [&'static str],
    /// Ends it.
    end: &'static str,
}

/// Each starts from a board where nobody uses flash, and leaves it so. `$p` is the process that `make` has started; the
/// kernel partition holds a squashfs with a static program in it. The second chip, `pnor`, was given three partitions:
/// `one` and `two` overlap, `three` lies by itself.
const USERS: &[User] = &[
    User {
        what: "a squashfs",
        make: "mount -t squashfs -o ro /dev/mtdblock2 /m",
        target: "mtd:kernel",
        says: &["mtd2 \"kernel\" (the target itself): mounted at /m (squashfs)"],
        end: "umount /m",
    },
    User {
        what: "a process that runs from it",
        make: "mount -t squashfs -o ro /dev/mtdblock2 /m; /m/busybox sleep 100 & p=$!",
        target: "mtd:kernel",
        says: &["mounted at /m (squashfs)", "(busybox) runs a program from it"],
        end: "kill $p; wait $p; umount /m",
    },
    User {
        what: "a process that runs from a squashfs that was unmounted lazily",
        make: "mount -t squashfs -o ro /dev/mtdblock2 /m; /m/busybox sleep 100 & p=$!; usleep 200000; umount -l /m",
        target: "mtd:kernel",
        says: &["held by the kernel", "(busybox) runs a program from it"],
        end: "kill $p; wait $p; usleep 200000",
    },
    User {
        what: "a file that is open on a squashfs that was unmounted lazily",
        make: "mount -t squashfs -o ro /dev/mtdblock2 /m; sleep 100 </m/busybox & p=$!; usleep 200000; umount -l /m",
        target: "mtd:kernel",
        says: &["held by the kernel", "(sleep) has /busybox open"],
        end: "kill $p; wait $p; usleep 200000",
    },
    User {
        what: "a mount in another mount namespace",
        make: "busybox unshare -m sh -c 'mount -t squashfs -o ro /dev/mtdblock2 /m; exec sleep 100' & p=$!; \
               until grep -q /dev/mtdblock2 /proc/$p/mountinfo; do usleep 20000; done; ! grep /dev/mtdblock2 /proc/mounts",
        target: "mtd:kernel",
        says: &["mounted at /m (squashfs) in the mount namespace of process"],
        end: "kill $p; wait $p; usleep 200000",
    },
    User {
        what: "a jffs2",
        make: "mount -t jffs2 /dev/mtdblock4 /m",
        target: "mtd:rwfs",
        says: &["mounted at /m (jffs2)", "served by the kernel thread jffs2_gcd_mtd4"],
        end: "umount /m",
    },
    User {
        what: "a file that is open on a read-only jffs2 that was unmounted lazily",
        make: "mount -t jffs2 /dev/mtdblock4 /m; echo x > /m/x; umount /m; mount -t jffs2 -o ro /dev/mtdblock4 /m; \
               sleep 100 </m/x & p=$!; usleep 200000; umount -l /m",
        target: "mtd:rwfs",
        says: &["(sleep) has /x open"],
        end: "kill $p; wait $p; usleep 200000",
    },
    User {
        what: "UBI",
        make: "ubiattach -m $nand",
        target: "$nand",
        says: &["attached to UBI as ubi0", "served by the kernel thread ubi_bgt0d"],
        end: "ubidetach -m $nand",
    },
    User {
        what: "a UBIFS",
        make: "ubiattach -m $nand; ubimkvol /dev/ubi0 -N data -S 66; mount -t ubifs ubi0:data /m",
        target: "$nand",
        says: &["mounted at /m (ubifs)", "attached to UBI as ubi0"],
        end: "umount /m; ubidetach -m $nand",
    },
    User {
        what: "swap",
        make: "busybox mkswap /dev/mtdblock3; busybox swapon /dev/mtdblock3",
        target: "mtd:rofs",
        says: &["mtd3 \"rofs\" (the target itself): used as swap"],
        end: "busybox swapoff /dev/mtdblock3",
    },
    User {
        what: "a loop device",
        make: "losetup /dev/loop5 /dev/mtdblock3",
        target: "mtd:rofs",
        says: &["under the loop device loop5"],
        end: "losetup -d /dev/loop5",
    },
    User {
        what: "an open character device",
        make: "sleep 100 </dev/mtd3ro & p=$!",
        target: "mtd:rofs",
        says: &["(sleep) has /dev/mtd3ro open"],
        end: "kill $p; wait $p",
    },
    User {
        what: "an open block device",
        make: "sleep 100 </dev/mtdblock3 & p=$!",
        target: "mtd:rofs",
        says: &["(sleep) has /dev/mtdblock3 open"],
        end: "kill $p; wait $p",
    },
    User {
        what: "a child of the target",
        make: "mount -t jffs2 /dev/mtdblock$one /m",
        target: "mtd:pnor",
        says: &["\"one\" (lies inside the target): mounted at /m (jffs2)"],
        end: "umount /m",
    },
    User {
        what: "the target's parent",
        make: "sleep 100 </dev/mtd$pnor & p=$!",
        target: "mtd:three",
        says: &["\"pnor\" (contains the target): process"],
        end: "kill $p; wait $p",
    },
    User {
        what: "a sibling that overlaps",
        make: "mount -t jffs2 /dev/mtdblock$one /m",
        target: "mtd:two",
        says: &["\"one\" (overlaps the target): mounted at /m (jffs2)"],
        end: "umount /m",
    },
];

/// A user of flash that the image does not touch, and the target that is to be written all the same.
const STRANGERS: &[(&str, &str, &str)] = &[
    ("mount -t jffs2 /dev/mtdblock$one /m", "mtd:three", "umount /m"),
    ("mount -t jffs2 /dev/mtdblock4 /m", "mtd:pnor", "umount /m"),
];

/// One boot, one user after the other.
fn run(assets: &Assets) -> Result<(), Failure> {
    let rescue = Rescue::build(assets)?;
    let squash = assets.scratch.join("squash");
    squashfs(assets, &squash)?;
    let image = std::fs::read(&squash).map_err(|e| Failure::file("read", &squash, e))?;
    let mut contents = vec![0xff; usize::try_from(CHIP).map_err(Failure::harness)?];
    let start = usize::try_from(KERNEL.offset).map_err(Failure::harness)?;
    contents[start..start + image.len()].copy_from_slice(&image);
    let device = rescue.device(assets, &contents)?;
    let machine = device.power_on(&rescue.boot)?;
    machine.ssh.wait_for_login(line::BOOT)?;
    let set_up = format!(
        "{LOAD_MORE}; insmod {NANDSIM} id_bytes=0x20,0xaa,0x00,0x15 parts=32,512 || exit 1; mkdir -p /m; \
         n() {{ sed -n \"s/^mtd\\([0-9]*\\):.*\\\"$1\\\"$/\\1/p\" /proc/mtd; }}; pnor=$(n pnor); \
         mtdpart add /dev/mtd$pnor one 0 0x100000 && mtdpart add /dev/mtd$pnor two 0x80000 0x100000 && \
         mtdpart add /dev/mtd$pnor three 0x800000 0x800000 || exit 1; \
         (echo pnor=$pnor; echo one=$(n one); echo nand=$(n 'NAND simulator partition 1')) > /tmp/names; \
         head -c 9000 /dev/urandom > /tmp/image; cat /tmp/names"
    );
    println!("{}", machine.ssh.succeed(&set_up)?);
    for user in USERS {
        one(&machine, user).map_err(|failure| failure.context(user.what))?;
    }
    for (make, target, end) in STRANGERS {
        let command = format!(
            ". /tmp/names; {make} || exit 99; grep -q ' /m jffs2 ' /proc/mounts || exit 98; {}; code=$?; {end}; exit $code",
            flashcp(target)
        );
        let done = machine.ssh.run(&command)?;
        check!(done.code == Some(0), "{make} stands in the way of {target}: {done}");
    }
    Ok(())
}

/// Asks while the user is there, and after it.
fn one(machine: &Machine, user: &User) -> Result<(), Failure> {
    let User { make, target, says, end, .. } = user;
    // to write, while the user is there; to plan, so that the next user finds the same flash
    let (writes, asks) = (flashcp(target).replace("--dry-run ", ""), flashcp(target));
    // the outputs of `make` and `end` are not flashcp's
    let command = format!(
        ". /tmp/names; {{ {make}; }} >/tmp/made 2>&1 </dev/null; usleep 100000; {writes}; first=$?; {{ {end}; }} >/tmp/made 2>&1; \
         {asks} >/tmp/after 2>&1; echo first $first second $?; grep '^flashcp\\|^mtd' /tmp/after"
    );
    let done = machine.ssh.run(&command)?;
    println!("{}: {done}", user.what);
    check!(done.stdout.contains("first 1 "), "was not refused: {done}");
    for part in *says {
        check!(done.stderr.contains(part), "the refusal does not say {part:?}: {done}");
    }
    check!(done.stdout.contains("second 0"), "is refused though it is gone: {done}");
    Ok(())
}

/// Nothing is written, but everything is asked.
fn flashcp(target: &str) -> String {
    let target = target.replace("$nand", "mtd$nand");
    format!("flashcp --any-content --dry-run /tmp/image {target}")
}

/// A squashfs with a static program in it.
fn squashfs(assets: &Assets, out: &std::path::Path) -> Result<(), Failure> {
    let armhf = assets.armhf.as_ref().ok_or_else(|| Failure::harness("the board's parts were not made"))?;
    let mut mksquashfs = assets.tool("mksquashfs");
    mksquashfs.arg(armhf.guest_root.join("bin/busybox")).arg(out);
    mksquashfs.args(["-all-root", "-comp", "xz", "-noappend", "-no-progress", "-quiet"]);
    let done = process::run(mksquashfs, None, line::BOOT)?;
    if done.code == Some(0) { Ok(()) } else { Err(Failure::harness(format!("mksquashfs: {done}"))) }
}
