//! Two names of one machine: it is recorded once, by the host that said first which machine it is. Nobody
//! is believed for another host: that two are one is seen on the later of them.

use super::{Trouble, Worker};
use crate::cluster::launch::{Claim, lock};
use crate::cluster::machine::MachineIdentity;
use crate::cluster::protocol::RecorderState;
use crate::cluster::record::HostState;
use crate::cluster::session::Session;
use std::time::{Duration, Instant};

/// Between two looks whether the first one is ready.
const LOOK: Duration = Duration::from_millis(50);

impl Worker {
    /// The name that this machine is recorded by already; none if that is this one. What another host
    /// says of itself is no proof, or it could keep this one from being recorded: its run must be seen
    /// here.
    pub(super) fn first_of(
        &mut self,
        machine: MachineIdentity,
        session: &mut Session<'_>,
        deadline: Instant,
    ) -> Result<Option<String>, Trouble> {
        if !machine.is_known() {
            return Ok(None);
        }
        let own = Claim {
            name: self.plan.spec.name.clone(),
            remote: Some((self.index, self.plan.place.clone())),
        };
        // Nor can it do so by taking its time.
        let patience = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        loop {
            let mut machines = lock(&self.shared.machines);
            let first = machines.entry(machine).or_insert_with(|| own.clone()).clone();
            let Some((index, place)) = first.remote else { return Ok(Some(first.name)) };
            if index == self.index {
                return Ok(None);
            }
            let state = lock(&self.shared.records).get(index).map(|record| record.state.clone());
            if matches!(state, None | Some(HostState::Failed | HostState::GivenUp)) {
                machines.insert(machine, own);
                return Ok(None);
            }
            drop(machines);
            if state != Some(HostState::SettingUp) {
                let its = self.attach(session, place, deadline)?;
                self.attach(session, self.plan.place.clone(), deadline)?;
                if its != RecorderState::None {
                    return Ok(Some(first.name));
                }
                // Others that say the same may be this one.
                let mut machines = lock(&self.shared.machines);
                if machines.get(&machine).is_some_and(|now| now.name == first.name) {
                    machines.insert(machine, own);
                }
                return Ok(None);
            }
            if self.end.is_some() || Instant::now() >= patience {
                return Ok(None);
            }
            self.hear(Some(LOOK));
        }
    }
}
