//! The init by itself: what the multi-call binary runs under the name `init`, for trying it out as the first process of
//! a pid namespace: `unshare --pid --mount --fork --mount-proc init --services DIR --run DIR`.

fn main() {
    ramdisk::init::run(std::env::args_os().skip(1))
}
