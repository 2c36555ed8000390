//! Setting the network's state: what is there already stays as it is.

use std::fs;
use std::path::Path;

use super::netlink::Netlink;
use super::plan::{self, Step};
use super::snapshot::list_links;
use super::state::{NetworkError, NetworkState};

/// Makes the interfaces of `state` that are missing (VLANs, bridges), brings `lo` and those that were up up, and adds their
/// addresses, the routes and the rules. What fails does not keep the rest from being done; the answer is everything that
/// failed, so an empty one means that the state holds.
///
/// Idempotent: what is there already is left alone, but for the end of an address's life, and nothing is removed. The host
/// name and resolv.conf are not set here: they are files of the staged root and a setting of the init's own.
#[must_use]
pub fn apply(state: &NetworkState) -> Vec<NetworkError> {
    let mut errors = Vec::new();
    if let Err(error) = try_apply(state, &mut errors) {
        errors.push(error);
    }
    errors
}

fn try_apply(state: &NetworkState, errors: &mut Vec<NetworkError>) -> Result<(), NetworkError> {
    let mut netlink = Netlink::open()?;
    let mut present = list_links(&mut netlink)?;
    // Each round makes what lies on that of the round before.
    for _ in &state.links {
        let requests = plan::to_make(&present, state);
        if requests.is_empty() {
            break;
        }
        let before = errors.len();
        for request in &requests {
            errors
                .extend(netlink.change(&request.what, request.kind, request.change, &request.message).err());
        }
        present = list_links(&mut netlink)?;
        if errors.len() > before {
            // Those would be tried again, in vain.
            break;
        }
    }
    for step in plan::settings(&present, state) {
        let done = step.and_then(|step| match step {
            Step::Ask(request) => {
                netlink.change(&request.what, request.kind, request.change, &request.message)
            }
            Step::Write(path, value) => write(&Path::new("/").join(path), &value),
        });
        errors.extend(done.err());
    }
    Ok(())
}

/// A kernel without such a setting needs none.
fn write(path: &Path, value: &str) -> Result<(), NetworkError> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim() != value => fs::write(path, value).map_err(|source| NetworkError::Setting {
            path: path.to_owned(),
            value: value.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
