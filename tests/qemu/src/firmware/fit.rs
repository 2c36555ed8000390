//! The kernel as U-Boot wants it: a FIT image with a digest, so that a half-written one is not started.

use std::path::Path;

use crate::assets::Assets;
use crate::suite::Failure;

/// Wraps `kernel` (an `Image.gz`) into a FIT image with one configuration, `c`.
pub(super) fn write(assets: &Assets, kernel: &Path, out: &Path) -> Result<(), Failure> {
    let source = out.with_extension("its");
    super::write(&source, source_text(kernel).as_bytes())?;
    let mut mkimage = assets.tool("mkimage");
    mkimage.arg("-f").arg(&source).arg(out);
    // Otherwise the time of the build would make two builds differ.
    mkimage.env("SOURCE_DATE_EPOCH", "1767225600");
    super::run_tool(mkimage)
}

fn source_text(kernel: &Path) -> String {
    let kernel = kernel.display();
    format!(
        r#"/dts-v1/;
/ {{
    description = "roof-device";
    #address-cells = <1>;
    images {{
        kernel {{
            description = "Linux";
            data = /incbin/("{kernel}");
            type = "kernel";
            arch = "arm64";
            os = "linux";
            compression = "gzip";
            load = <0x40200000>;
            entry = <0x40200000>;
            hash {{ algo = "sha256"; }};
        }};
    }};
    configurations {{
        default = "c";
        c {{ kernel = "kernel"; }};
    }};
}};
"#
    )
}
