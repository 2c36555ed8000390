//! Shows the network's state as JSON; with the name of a file with such a state, sets it first and tells what failed.

use std::path::Path;

use ramdisk::network;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(file) = std::env::args_os().nth(1) {
        let state = network::NetworkState::read(Path::new(&file))?.ok_or("no such file")?;
        for error in network::apply(&state) {
            eprintln!("{error}: {:?}", std::error::Error::source(&error));
        }
    }
    println!("{}", serde_json::to_string_pretty(&network::snapshot(Path::new("/"))?)?);
    Ok(())
}
