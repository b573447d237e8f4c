//! `millrace get stations`: which MAC addresses do the networks know, and behind which port?

use local_api::switch_v1 as api;
use serde::Serialize;

use super::{GetArgs, age};
use crate::client;
use crate::output::Row;

#[derive(Serialize)]
struct Answer {
    stations: Vec<Station>,
}

#[derive(Serialize)]
struct Station {
    network: u32,
    vlan: u32,
    mac: String,
    port: u32,
    port_name: String,
    configured: bool,
    idle_ms: u64,
}

impl Row for Station {
    const HEADS: &'static [&'static str] = &["NETWORK", "VLAN", "MAC", "PORT", "KNOWN", "IDLE"];

    fn cells(&self) -> Vec<String> {
        let vlan = if self.vlan == 0 { "-".into() } else { self.vlan.to_string() };
        let (known, idle) =
            if self.configured { ("configured", "-".into()) } else { ("learned", age(self.idle_ms)) };
        vec![self.network.to_string(), vlan, self.mac.clone(), self.port_name.clone(), known.into(), idle]
    }
}

pub(super) async fn show(args: &GetArgs) -> anyhow::Result<()> {
    let answer = client::switch(&args.run_dir).list_stations(api::ListStationsRequest {}).await;
    let state = client::switch_says(answer, &args.run_dir)?;
    let names = super::port_names(args).await?;
    let station = |station: api::Station| Station {
        network: station.network,
        vlan: station.vlan,
        mac: station.mac,
        port: station.port,
        port_name: names.get(&station.port).cloned().unwrap_or_else(|| station.port.to_string()),
        configured: station.configured,
        idle_ms: station.idle_ms,
    };
    let answer = Answer { stations: state.stations.into_iter().map(station).collect() };
    super::answer(args, &answer.stations, "no stations: no port lists one, and none was learned", &answer)
}
