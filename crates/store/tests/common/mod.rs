//! VMs for tests.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test program uses its part"
)]

use banger_model::*;
use std::net::Ipv4Addr;

pub const INSTANCE: Instance = Instance::from_bytes([0xab, 0xcd, 0, 1]);

/// The n-th VM: every field is filled, and none equals another VM's.
pub fn vm(n: u32) -> Vm {
    let [.., a, b, c, d] = n.to_be_bytes();
    let id = VmId::from_bytes([0x10, 0, a, b, c, d]);
    let dir = format!("/state/vms/{id}");
    Vm {
        id,
        name: format!("vm-{n}").parse().unwrap(),
        owner_uid: 1000 + n,
        goal: Goal::Running,
        generation: Generation::FIRST,
        phase: Phase::Running,
        reason: Some(Reason {
            kind: ReasonKind::Requested,
            text: "asked for\n\"it\" ü".into(),
        }),
        spec: VmSpec {
            image: "debian".into(),
            image_id: "0123456789ab".into(),
            image_size: ByteSize::mib(300),
            image_config: None,
            kernel: "host".into(),
            vcpus: 2,
            memory: ByteSize::mib(2048),
            overlay_size: ByteSize::gib(8),
            disk_size: ByteSize::gib(8),
            nat: true,
            ports: Vec::new(),
            remove_on_exit: false,
            init: banger_model::Init::Agent,
            drivers: Drivers::EVERYWHERE,
            channel_token: format!("{n:032x}"),
        },
        lease: Lease {
            ip: Ipv4Addr::from(0xac10_0002 + n),
            mac: MacAddress::of_vm(id),
            cid: 3 + n,
        },
        runtime: VmRuntime {
            api_socket: format!("{dir}/api.sock").into(),
            vsock_path: format!("{dir}/agent.sock").into(),
            log_path: format!("{dir}/console.log").into(),
            metrics_path: Some(format!("{dir}/metrics").into()),
            dns_name: format!("vm-{n}.vm"),
            vm_dir: dir.clone().into(),
            system_overlay: format!("{dir}/overlay.ext4").into(),
            work_disk: format!("{dir}/work.ext4").into(),
        },
        mirror: Some(RecoveryMirror {
            boot_id: BootId("b00t".into()),
            tap: Some(TapName::of_vm(id)),
            base_loop: Some(n),
            cow_loop: Some(n + 1),
            dm_name: Some(DmName::of_vm(INSTANCE, id)),
        }),
        last_error: Some("first: second".into()),
        created_at: 1_700_000_000 + u64::from(n),
        last_used_at: 1_700_000_001 + u64::from(n),
    }
}
