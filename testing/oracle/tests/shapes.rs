//! All shapes of rules: what they mean naively, what was compiled, what the switch does.

use oracle::Trial;
use oracle::enumerate::shapes;

#[test]
fn everybody_agrees_on_all_shapes_of_rules() {
    let shapes = shapes();
    assert!(shapes.len() >= 200, "{} shapes", shapes.len());
    for shape in &shapes {
        let mut trial = Trial::new(&shape.world);
        for part in &shape.parts {
            trial.apply(part);
            trial.check_connections();
            trial.ask_all();
        }
    }
}
