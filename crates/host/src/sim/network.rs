//! `Links` and `Firewall` on the simulated machine.

use super::{
    fs::{Answer, Refusal},
    host::SimHost,
    world::{Link, World},
};
use crate::{Effect, ErrorKind, Firewall, LinkSeen, Links, effects::Result};
use banger_model::{Instance, Label, TapName};
use std::{net::Ipv4Addr, rc::Rc};

impl World {
    fn our_link(&mut self, name: &str, label: &Label) -> Answer<&mut Link> {
        match self.kernel_mut().links.get_mut(name) {
            None => Err(Refusal(ErrorKind::NotFound, "no such link")),
            Some(link) if *link.alias != *label.to_string() => {
                Err(Refusal(ErrorKind::Foreign, "it does not carry our label"))
            }
            Some(link) => Ok(link),
        }
    }

    fn link_create(&mut self, name: &str, label: &Label, bridge: bool) -> Answer<()> {
        let alias: Rc<str> = label.to_string().into();
        match self.kernel.links.get(name) {
            Some(link) if link.alias == alias => {
                return Err(Refusal(ErrorKind::Exists, "the link is there"));
            }
            Some(_) => return Err(Refusal(ErrorKind::Foreign, "another's link has that name")),
            None => {}
        }
        let link = Link {
            alias,
            master: None,
            bridge,
        };
        self.kernel_mut().links.insert(name.into(), link);
        Ok(())
    }
}

impl Links for SimHost {
    fn links(&self) -> Result<Vec<LinkSeen>> {
        self.effect(Effect::LinkList, "list", "links", |world| {
            let seen = |(name, link): (&Rc<str>, &Link)| LinkSeen {
                name: name.to_string(),
                alias: link.alias.to_string(),
                master: link.master.as_ref().map(|m| m.to_string()),
            };
            Ok(world.kernel.links.iter().map(seen).collect())
        })
    }

    fn tap_create(&self, name: &TapName, label: &Label, _owner_uid: u32) -> Result<()> {
        self.effect(Effect::TapCreate, "make tap", name, |world| {
            world.link_create(name.as_str(), label, false)
        })
    }

    fn set_master(&self, name: &TapName, label: &Label, bridge: &str) -> Result<()> {
        // Two kernel steps: port of the bridge, then up; a crash between leaves the first, which
        // looks the same here.
        self.effect(Effect::SetMaster, "join to the bridge", name, |world| {
            let bridge_there = world.kernel.links.get(bridge).is_some_and(|l| l.bridge);
            let link = world.our_link(name.as_str(), label)?;
            if !bridge_there {
                return Err(Refusal(ErrorKind::NoDevice, "no such bridge"));
            }
            match &link.master {
                Some(there) if **there == *bridge => {}
                // A port is taken from its bridge first, never moved.
                Some(_) => return Err(Refusal(ErrorKind::Busy, "a port of another bridge")),
                // br_add_if: ELOOP.
                None if link.bridge => {
                    return Err(Refusal(ErrorKind::Other, "a bridge is no port of a bridge"));
                }
                None => link.master = Some(bridge.into()),
            }
            Ok(())
        })
    }

    fn clear_master(&self, name: &TapName, label: &Label) -> Result<()> {
        self.effect(Effect::SetMaster, "take from the bridge", name, |world| {
            world.our_link(name.as_str(), label)?.master = None;
            Ok(())
        })
    }

    fn link_delete(&self, name: &TapName, label: &Label) -> Result<()> {
        self.effect(Effect::LinkDelete, "delete link", name, |world| {
            if world.our_link(name.as_str(), label)?.bridge {
                // TUNSETIFF on a link of another kind: EINVAL.
                return Err(Refusal(ErrorKind::Other, "not a tap"));
            }
            if let Some(vm) = label.vm_id()
                && world.vmm_of(vm).is_some()
            {
                world.sin(format!("tap {name} was deleted under a live VMM"));
            }
            world.kernel_mut().links.remove(name.as_str());
            Ok(())
        })
    }

    fn bridge_create(&self, name: &str, label: &Label, _: Ipv4Addr, _: u8) -> Result<()> {
        self.effect(Effect::BridgeCreate, "make bridge", name, |world| {
            world.link_create(name, label, true)
        })
    }

    fn bridge_delete(&self, name: &str, label: &Label) -> Result<()> {
        self.effect(Effect::LinkDelete, "delete bridge", name, |world| {
            if !world.our_link(name, label)?.bridge {
                // br_del_bridge: EPERM.
                return Err(Refusal(ErrorKind::Denied, "not a bridge"));
            }
            let links = &mut world.kernel_mut().links;
            links.remove(name);
            for link in links.values_mut() {
                if link.master.as_deref() == Some(name) {
                    link.master = None;
                }
            }
            Ok(())
        })
    }
}

impl Firewall for SimHost {
    fn ruleset(&self, table: &str) -> Result<Option<String>> {
        self.effect(Effect::RulesetRead, "read table", table, |world| {
            Ok(world.kernel.tables.get(table).map(|t| t.to_string()))
        })
    }

    fn ruleset_swap(&self, table: &str, text: &str) -> Result<()> {
        self.effect(Effect::RulesetSwap, "swap table", table, |world| {
            let instance = table.rsplit(['_', '-']).next().unwrap_or("");
            if instance.parse::<Instance>().is_err() {
                return Err(Refusal(ErrorKind::Other, "its name ends with no instance"));
            }
            if !text.is_empty() && !text.starts_with(&format!("table ip {table} {{\n")) {
                return Err(Refusal(ErrorKind::Other, "the text is not this table"));
            }
            let tables = &mut world.kernel_mut().tables;
            match text.is_empty() {
                true => tables.remove(table),
                false => tables.insert(table.into(), text.into()),
            };
            Ok(())
        })
    }
}
