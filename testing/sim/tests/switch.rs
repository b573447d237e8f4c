//! The switch against the reference: any scenario, any order.

use proptest::prelude::*;
use sim::{Outcome, Reference, Step, World, scenario};
use vswitch::program::ProgramSpec;

/// Runs `steps` in both worlds and compares them after each.
fn run(steps: &[Step], workers: usize) -> Result<(), TestCaseError> {
    let (mut world, mut reference) = (World::new(workers), Reference::default());
    let mut spec = ProgramSpec::default();
    for (number, step) in steps.iter().enumerate() {
        if step.apply(&mut spec) {
            world.set_program(&spec).map_err(|error| TestCaseError::fail(error.to_string()))?;
            reference.set_program(&spec);
        }
        match step {
            Step::Frames(port, messages) => {
                let frames: Vec<_> = messages.iter().map(|message| message.bytes()).collect();
                let mut expected = Outcome::default();
                for message in messages {
                    expected.add(reference.receive(*port, message));
                }
                let outcome = world.receive(*port, &frames);
                prop_assert!(outcome.is_balanced(), "step {}: {:?}: {:?}", number, step, outcome);
                prop_assert_eq!(outcome, expected, "step {}: {:?}", number, step);
            }
            Step::Pass(ms) => {
                world.pass(*ms);
                reference.pass(*ms);
            }
            _ => {}
        }
        prop_assert_eq!(world.stations(), reference.stations(), "stations after step {}: {:?}", number, step);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_worker_does_what_the_reference_does(steps in scenario(1..60)) {
        run(&steps, 1)?;
    }

    #[test]
    fn two_workers_do_what_the_reference_does(steps in scenario(1..60)) {
        run(&steps, 2)?;
    }
}
