//! Killed, failed or lied to at every single step: nothing leaks, nothing is forgotten, and the next call works.
//!
//! Each test runs its operation again and again with the fuse one step later, until it runs through. A step is one call of
//! the rim or one write, resize or sync of the disk under the store.

use super::world::{
    Blow, World, delegated_request, left_on_vfio_request, request, sriov_request, switched_request,
    switched_vdpa_request, switched_vfio_request, vdpa_file_request, vdpa_netdev_request,
    vdpa_rebound_request, vdpa_vhost_request, vduse_request, vfio_request, vhost_request,
};
use crate::record::State;
use crate::{AddRequest, Engine};

/// What container number n asks for.
type Ask = fn(usize) -> AddRequest;

const KINDS: [(&str, Ask); 14] = [
    ("tap", request),
    ("vhost-user", vhost_request),
    ("delegated IPAM", delegated_request),
    ("vduse", vduse_request),
    ("vdpa-vhost", vdpa_vhost_request),
    ("sriov", sriov_request),
    ("sriov by vfio", vfio_request),
    ("sriov left on vfio", left_on_vfio_request),
    ("sriov with a representor", switched_request),
    ("sriov by vfio with a representor", switched_vfio_request),
    ("vdpa with a representor", switched_vdpa_request),
    ("vdpa netdev, made", vdpa_netdev_request),
    ("vdpa file of what is there", vdpa_file_request),
    ("vdpa netdev of what is there", vdpa_rebound_request),
];

/// Runs `scenario` with the fuse at each step in turn; it says whether the fuse blew.
fn at_every_step(blow: Blow, mut scenario: impl FnMut(usize, &str, Ask) -> bool) {
    for (kind, request) in KINDS {
        let mut step = 0;
        while scenario(step, kind, request) {
            step += 1;
        }
        assert!(step > 5, "{kind}: {blow:?} was tried at {step} steps only");
    }
}

fn assert_clean(world: &World, agent: &Engine, context: &str) {
    agent.watch().unwrap();
    assert_eq!(world.remains(), Vec::<String>::new(), "{context}");
    assert_eq!(agent.desired().attachments().count(), 0, "{context}");
}

/// The runtime's two ways on after a failed ADD: DEL, or ADD again and DEL later.
fn both_ways(world: &World, agent: &Engine, request: &AddRequest, again: bool, context: &str) {
    if again {
        let made = agent.add(request).unwrap_or_else(|error| panic!("{context}: {error}"));
        agent.check(&made.id, &made.netns).unwrap_or_else(|drift| panic!("{context}: {drift:?}"));
    }
    agent.del(&request.id).unwrap_or_else(|errors| panic!("{context}: {errors:?}"));
    assert_clean(world, agent, context);
}

fn killed_in_add(blow: Blow, again: bool) {
    at_every_step(blow, |step, kind, request| {
        let context = format!("{kind}: {blow:?} {step}");
        let world = World::new();
        let agent = world.agent().unwrap();
        world.set_fuse(step, blow);
        let answered = agent.add(&request(0)).is_ok();
        drop(agent);
        let blew = world.take_fuse();
        let agent = world.agent().unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(
            agent.desired().attachments().all(|found| found.state == State::Ready),
            "{context}: half-made"
        );
        if answered {
            agent
                .check(&request(0).id, &request(0).netns)
                .unwrap_or_else(|drift| panic!("{context}: {drift:?}"));
        }
        both_ways(&world, &agent, &request(0), again, &context);
        blew
    });
}

#[test]
fn add_when_killed_before_any_step_leaves_nothing_that_del_does_not_remove() {
    killed_in_add(Blow::KillBefore, false);
}

#[test]
fn add_when_killed_after_any_step_leaves_nothing_that_del_does_not_remove() {
    killed_in_add(Blow::KillAfter, false);
}

#[test]
fn add_when_killed_at_any_step_can_be_asked_again() {
    killed_in_add(Blow::KillBefore, true);
    killed_in_add(Blow::KillAfter, true);
}

#[test]
fn add_when_any_step_fails_leaves_its_neighbours_alone_and_can_be_undone_or_asked_again() {
    for blow in [Blow::FailBefore, Blow::FailAfter] {
        for again in [false, true] {
            at_every_step(blow, |step, kind, ask| {
                let context = format!("{kind}: {blow:?} {step}");
                let world = World::new();
                let agent = world.agent().unwrap();
                let neighbour = agent.add(&request(1)).unwrap();
                world.set_fuse(step, blow);
                let _ = agent.add(&ask(0));
                let blew = world.take_fuse();
                agent.watch().unwrap();
                agent
                    .check(&neighbour.id, &neighbour.netns)
                    .unwrap_or_else(|drift| panic!("{context}: {drift:?}"));
                if again {
                    agent.add(&ask(0)).unwrap_or_else(|error| panic!("{context}: {error}"));
                }
                agent.del(&ask(0).id).unwrap_or_else(|errors| panic!("{context}: {errors:?}"));
                agent.del(&neighbour.id).unwrap();
                assert_clean(&world, &agent, &context);
                blew
            });
        }
    }
}

#[test]
fn del_when_killed_at_any_step_is_finished_by_the_next_agent() {
    for blow in [Blow::KillBefore, Blow::KillAfter] {
        at_every_step(blow, |step, kind, request| {
            let context = format!("{kind}: {blow:?} {step}");
            let world = World::new();
            let agent = world.agent().unwrap();
            agent.add(&request(0)).unwrap();
            world.set_fuse(step, blow);
            let _ = agent.del(&request(0).id);
            drop(agent);
            let blew = world.take_fuse();
            let agent = world.agent().unwrap_or_else(|error| panic!("{context}: {error}"));
            agent.del(&request(0).id).unwrap_or_else(|errors| panic!("{context}: {errors:?}"));
            assert_clean(&world, &agent, &context);
            blew
        });
    }
}

#[test]
fn del_when_any_step_fails_is_finished_when_asked_again() {
    for blow in [Blow::FailBefore, Blow::FailAfter] {
        at_every_step(blow, |step, kind, request| {
            let context = format!("{kind}: {blow:?} {step}");
            let world = World::new();
            let agent = world.agent().unwrap();
            agent.add(&request(0)).unwrap();
            world.set_fuse(step, blow);
            let _ = agent.del(&request(0).id);
            let blew = world.take_fuse();
            agent.del(&request(0).id).unwrap_or_else(|errors| panic!("{context}: {errors:?}"));
            assert_clean(&world, &agent, &context);
            blew
        });
    }
}

#[test]
fn start_when_killed_at_any_step_is_finished_by_the_next_agent() {
    for blow in [Blow::KillBefore, Blow::KillAfter] {
        at_every_step(blow, |step, kind, ask| {
            let context = format!("{kind}: {blow:?} {step}");
            let world = World::new();
            let agent = world.agent().unwrap();
            let stays = agent.add(&request(1)).unwrap();
            // Half-made when the agent dies: as late as can be, so that there is the most to undo.
            let made = agent.add(&ask(0)).unwrap();
            agent.half_make(&made);
            drop(agent);
            world.set_fuse(step, blow);
            drop(world.agent());
            let blew = world.take_fuse();
            let agent = world.agent().unwrap_or_else(|error| panic!("{context}: {error}"));
            agent.check(&stays.id, &stays.netns).unwrap_or_else(|drift| panic!("{context}: {drift:?}"));
            agent.del(&stays.id).unwrap();
            assert_clean(&world, &agent, &context);
            blew
        });
    }
}

#[test]
fn add_when_the_switch_restarts_at_any_step_ends_with_the_port_in_it() {
    at_every_step(Blow::RestartSwitch, |step, kind, ask| {
        let context = format!("{kind}: restart {step}");
        let world = World::new();
        let agent = world.agent().unwrap();
        let neighbour = agent.add(&request(1)).unwrap();
        world.set_fuse(step, Blow::RestartSwitch);
        let made = agent.add(&ask(0)).unwrap_or_else(|error| panic!("{context}: {error}"));
        let blew = world.take_fuse();
        agent.watch().unwrap();
        for attachment in [&made, &neighbour] {
            agent
                .check(&attachment.id, &attachment.netns)
                .unwrap_or_else(|drift| panic!("{context}: {drift:?}"));
        }
        blew
    });
}
