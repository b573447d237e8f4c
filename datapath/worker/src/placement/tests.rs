//! Are the plans good, bounded and calm, whatever the loads?

use proptest::prelude::*;
use vswitch::program::PortNo;

use super::*;

const CAPACITY: u64 = 1_000_000;

fn id(port: u16) -> QueueId {
    QueueId { port: PortNo(port), queue: 0 }
}

/// Queues with these workers and loads, by port from 0.
fn queues(loads: &[(usize, u64)]) -> Vec<QueueLoad> {
    let queue = |(&(worker, cycles), port)| QueueLoad { id: id(port), worker, cycles, pinned: false };
    loads.iter().zip(0..).map(queue).collect()
}

fn obey(queues: &mut [QueueLoad], moves: &[Move]) {
    for to in moves {
        queues.iter_mut().find(|queue| queue.id == to.id).expect("a queue that exists").worker = to.to;
    }
}

fn peak(capacities: &[u64], queues: &[QueueLoad]) -> f64 {
    Loads::of(capacities, queues).highest()
}

fn variance(capacities: &[u64], queues: &[QueueLoad]) -> f64 {
    Loads::of(capacities, queues).variance()
}

prop_compose! {
    /// Workers that are as fast as each other, and queues on them that are no more than the workers can do.
    fn machine()(workers in 1usize..9)(
        loads in prop::collection::vec((0..workers, 0u64..=CAPACITY, any::<bool>()), 0..40),
        workers in Just(workers),
    ) -> (Vec<u64>, Vec<QueueLoad>) {
        let mut left = vec![CAPACITY; workers];
        let fit = |(worker, cycles, pinned): (usize, u64, bool)| {
            let cycles = cycles.min(left[worker]);
            left[worker] -= cycles;
            (worker, cycles, pinned)
        };
        let fitted: Vec<_> = loads.into_iter().map(fit).collect();
        let mut made = queues(&fitted.iter().map(|&(worker, cycles, _)| (worker, cycles)).collect::<Vec<_>>());
        for (queue, &(_, _, pinned)) in made.iter_mut().zip(&fitted) {
            queue.pinned = pinned && queue.id.port.0.is_multiple_of(4);
        }
        (vec![CAPACITY; workers], made)
    }
}

proptest! {
    #[test]
    fn a_plan_relieves_and_never_makes_worse((capacities, mut queues) in machine()) {
        let (peak_before, variance_before) = (peak(&capacities, &queues), variance(&capacities, &queues));
        let moves = plan(&capacities, &queues);
        prop_assert!(moves.len() <= MAX_MOVES);
        prop_assert!(moves.is_empty() || peak_before >= OVERLOAD);
        for to in &moves {
            let queue = queues.iter().find(|queue| queue.id == to.id).unwrap();
            prop_assert!(!queue.pinned && queue.worker != to.to && to.to < capacities.len());
        }
        obey(&mut queues, &moves);
        prop_assert!(peak(&capacities, &queues) <= peak_before);
        prop_assert!(moves.is_empty() || variance(&capacities, &queues) < variance_before);
    }

    #[test]
    fn workers_that_are_not_alike_are_not_made_worse_either(
        capacities in prop::collection::vec(1u64..=CAPACITY, 1..6),
        loads in prop::collection::vec((0usize..6, 0u64..=CAPACITY), 0..30),
    ) {
        let mut queues = queues(&loads);
        queues.retain(|queue| queue.worker < capacities.len());
        let before = peak(&capacities, &queues);
        let moves = plan(&capacities, &queues);
        obey(&mut queues, &moves);
        prop_assert!(peak(&capacities, &queues) <= before);
    }

    #[test]
    fn the_same_loads_give_the_same_plan_in_whatever_order((capacities, mut queues) in machine()) {
        let moves = plan(&capacities, &queues);
        queues.reverse();
        prop_assert_eq!(plan(&capacities, &queues), moves);
    }

    #[test]
    fn steady_loads_come_to_rest((capacities, mut queues) in machine()) {
        let mut rounds = 0;
        loop {
            let moves = plan(&capacities, &queues);
            if moves.is_empty() {
                break;
            }
            obey(&mut queues, &moves);
            rounds += 1;
            prop_assert!(rounds < 20, "still moving {moves:?}");
        }
    }
}

#[test]
fn two_busy_queues_of_one_worker_are_parted() {
    let moves = plan(&[CAPACITY; 2], &queues(&[(0, 500_000), (0, 500_000)]));
    assert_eq!(moves, [Move { id: id(0), to: 1 }]);
}

#[test]
fn what_cannot_be_relieved_is_left_alone() {
    let one_elephant = queues(&[(0, CAPACITY), (1, 10)]);
    let all_full = queues(&[(0, 500_000), (0, 500_000), (1, CAPACITY)]);
    let nobody_overloaded = queues(&[(0, 400_000), (0, 400_000)]);
    let small_gain = queues(&[(0, 950_000), (0, 50_000)]);
    for loads in [one_elephant, all_full, nobody_overloaded, small_gain, Vec::new()] {
        assert_eq!(plan(&[CAPACITY; 2], &loads), []);
    }
    assert_eq!(plan(&[CAPACITY], &queues(&[(0, CAPACITY)])), []);
    assert_eq!(plan(&[], &queues(&[(0, CAPACITY)])), []);
    let mut pinned = queues(&[(0, 500_000), (0, 500_000)]);
    pinned.iter_mut().for_each(|queue| queue.pinned = true);
    assert_eq!(plan(&[CAPACITY; 2], &pinned), []);
}

#[test]
fn a_hundred_small_queues_leave_their_one_worker_in_several_rounds() {
    let capacities = [CAPACITY; 8];
    let mut loads = queues(&[(0, CAPACITY / 100); 100]);
    assert_eq!(plan(&capacities, &loads).len(), MAX_MOVES);
    for _ in 0..10 {
        let moves = plan(&capacities, &loads);
        obey(&mut loads, &moves);
    }
    assert!(peak(&capacities, &loads) < OVERLOAD);
}

/// A machine of two workers, by whose counters a balancer decides. The queues want this share of a worker each.
struct Machine {
    balancer: Balancer,
    queues: Vec<QueueView>,
    now: u64,
}

impl Machine {
    fn new(workers: &[usize]) -> Self {
        let view = |(&worker, port)| QueueView { id: id(port), worker, busy_cycles: 0, moves: 0 };
        Self { balancer: Balancer::default(), queues: workers.iter().zip(0..).map(view).collect(), now: 1 }
    }

    /// One interval; workers that are asked for more than they can do serve their queues by shares.
    fn interval(&mut self, wanted: &[f64]) -> Vec<Move> {
        let of_worker = |worker| {
            self.queues.iter().zip(wanted).filter(|(queue, _)| queue.worker == worker).map(|(_, w)| w).sum()
        };
        let asked: [f64; 2] = [of_worker(0), of_worker(1)];
        for (queue, share) in self.queues.iter_mut().zip(wanted) {
            queue.busy_cycles += (share / asked[queue.worker].max(1.0) * CAPACITY as f64) as u64;
        }
        self.now += CAPACITY;
        let moves = self.balancer.decide(self.now, 2, &self.queues);
        for to in &moves {
            self.queues.iter_mut().find(|queue| queue.id == to.id).unwrap().worker = to.to;
        }
        moves
    }
}

#[test]
fn an_overload_moves_a_queue_only_when_it_lasts() {
    let mut machine = Machine::new(&[0, 0]);
    for round in 0..10 {
        let wanted = if round % 3 == 2 { [0.1, 0.1] } else { [0.8, 0.8] };
        assert_eq!(machine.interval(&wanted), [], "round {round}");
    }
    let moves: Vec<_> = (0..10).map(|_| machine.interval(&[0.8, 0.8]).len()).collect();
    assert_eq!(moves.iter().sum::<usize>(), 1, "{moves:?}");
}

#[test]
fn loads_that_swing_move_each_queue_once_in_a_while_at_most() {
    let mut machine = Machine::new(&[0, 0, 1, 1]);
    let mut moves = 0;
    for round in 0..10 * SETTLE {
        let wanted = if (round / 5) % 2 == 0 { [0.9, 0.9, 0.0, 0.0] } else { [0.0, 0.0, 0.9, 0.9] };
        moves += machine.interval(&wanted).len();
    }
    assert!((1..=4 * 11).contains(&moves), "{moves}");
}

#[test]
fn a_queue_that_wants_more_than_there_is_is_not_moved_to_and_fro() {
    let mut machine = Machine::new(&[0, 0, 0]);
    let moves: usize = (0..1000).map(|_| machine.interval(&[5.0, 5.0, 5.0]).len()).sum();
    assert_eq!(moves, 1, "two workers are full then, and nothing is to be gained");
}
