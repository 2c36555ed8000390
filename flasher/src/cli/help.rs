//! The help text, written by hand: it fits 80 columns on every terminal, and says what the codes mean.

pub(super) const HELP: &str = "\
Bring a firmware image onto a flash partition, and prove it.

Usage: flashcp [OPTIONS] IMAGE DEVICE
       flashcp [OPTIONS] --plan=FILE

  IMAGE   the image, a file; - is standard input
  DEVICE  /dev/mtdN, mtdN, or mtd:NAME (the exact name from /proc/mtd);
          ubiN:NAME or /dev/ubiN_V is a UBI volume

Only erase blocks that differ are erased and programmed. The image's head is
made invalid first and completed last, after everything else was proven:
after a power cut the boot loader finds the old image, the new one, or none.
Flash that is in use is not written. Once the flash changes, a lost session
does not stop it; its report is in /run/levitate/flash.json.

ubiN:NAME is written as a new volume NAME.flashcp, which takes the name when it
is proven; without room for it, and ubiN_V always, in place. That name is this
tool's own: a volume of NAME's kind and size that bears it is removed.

Options:
  -v, --verbose       print progress also where there is no terminal
  -p, --partition     write only what differs (the default; accepted as it is)
  -A, --erase-all     erase the rest of the partition too
  -l, --wr-last=BYTES the size of the head (default: the first erase block)
      --head=auto     head invalid first, completed last (default)
      --head=keep     in plain order; a power cut may leave a valid head
      --full          rewrite blocks that do not differ, too
      --clear-bits    clear bits without an erase on parallel NOR as well
      --bad-blocks=refuse|skip|mark
                      an image over a bad block of NAND is refused (default);
                      goes on in the next good block; the same, and blocks that
                      wear out are marked bad, for ever
      --dry-run       print what would be done with a map, change nothing
      --verify-only   compare, change nothing
      --size=BYTES    refuse an image of another size
      --sha256=HEX    refuse any other image
      --decompress[=auto|gzip|xz|zstd|none]
                      what the image is compressed with; auto asks its first
                      bytes (default: a file named .gz, .xz or .zst is)
      --any-content   write an image of another kind, or a damaged uImage
      --raw-ubi       write a UBI image onto raw NAND as plain bytes
      --allow-in-use  write although somebody uses it
      --plan=FILE     write several images: all are checked before the first
                      change; FILE is TOML, see below
      --json          print one event per line, as JSON
  -h, --help          print this
  -V, --version       print the version

Size and SHA-256 are those of the image as it lies in flash, decompressed.
A dropped connection looks like the end of standard input. So its end must be
proven: by --size, by --sha256, or by the end of a compressed stream.

Examples:
  flashcp -v firmware.bin mtd:firmware
  flashcp --dry-run firmware.bin /dev/mtd5
  flashcp --verify-only firmware.bin mtd5
  zstd firmware.bin | ssh DEVICE flashcp --decompress=zstd - mtd:firmware

A plan names one or more of these, images relative to the plan's directory;
only partition and image are needed, lower orders are written first:
  [[flash]]
  partition = \"mtd:firmware\"
  image = \"firmware.bin\"
  sha256 = \"...\"
  order = 1

Exit codes:
  0  verified (--dry-run: possible; --verify-only: equal)
  1  failed, the flash is untouched
  2  wrong usage
  3  the flash was changed and is not verified: do not reboot, run it again
  4  verified, but the chip's locks could not be restored
  5  --verify-only: different
";
