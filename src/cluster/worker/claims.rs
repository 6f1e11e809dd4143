//! Two names of one machine: it is recorded once, by the host that said first which machine it is. Nobody
//! is believed for another host: that two are one is seen on the later of them.

use super::{Trouble, Worker};
use crate::cluster::machine::MachineIdentity;
use crate::cluster::protocol::{Reply, Request};
use crate::cluster::record::HostState;
use crate::cluster::session::{Session, unexpected};
use crate::cluster::shared::{Claim, RemoteClaim, lock};
use std::time::{Duration, Instant};

/// Between two looks whether the first one is ready.
const LOOK: Duration = Duration::from_millis(50);

impl Worker {
    /// The name that this machine is recorded by already; none if that is this one. What another host
    /// says of itself is no proof, or it could keep this one from being recorded: its run must be seen
    /// here, by `user`, who has logged in. In doubt it is recorded twice.
    pub(super) fn first_of(
        &mut self,
        machine: MachineIdentity,
        user: Option<String>,
        session: &mut Session<'_>,
        deadline: Instant,
    ) -> Result<Option<String>, Trouble> {
        if !machine.is_known() {
            return Ok(None);
        }
        let place = self.plan.place.clone();
        let own = Claim {
            name: self.plan.spec.name.clone(),
            remote: Some(RemoteClaim { index: self.index, place, user }),
        };
        // Nor can it do so by taking its time.
        let patience = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        loop {
            let mut machines = lock(&self.shared.machines);
            let first = machines.entry(machine).or_insert_with(|| own.clone()).clone();
            let Some(RemoteClaim { index, place, user }) = first.remote else {
                return Ok(Some(first.name));
            };
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
                let look = Request::Look { place, user };
                match session.ask(&look, deadline, "whether another name has its run there")? {
                    Reply::Seen(true) => return Ok(Some(first.name)),
                    Reply::Seen(false) => {}
                    other => return Err(unexpected(&other, "whether it sees another run").into()),
                }
                self.update(|record| record.unseen_twin = Some(first.name.clone()));
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
