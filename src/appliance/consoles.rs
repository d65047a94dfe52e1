//! A session on each console of the board.

use super::host::Appliance;
use crate::console::Host;
use crate::daemon::console;
use crate::daemon::stop::Stop;
use std::sync::Arc;

/// Starts them. One that cannot be is told at the others.
pub fn start(appliance: &Arc<Appliance>) {
    let stop = Stop::default(); // they end with the machine
    for named in &appliance.parameters.consoles {
        let line = match named.parse() {
            Ok(line) => line,
            Err(error) => {
                appliance.notice(format!("console={named}: {error}"));
                continue;
            }
        };
        let host = Arc::clone(appliance) as Arc<dyn Host + Send + Sync>;
        if let Err(error) = console::start(line, appliance.profile(), host, &stop) {
            appliance.notice(format!("console={named}: {error}"));
        }
    }
}
