#!/bin/bash
# cargo - Rust's cargo, with no network: builds a program and a library, runs
# their tests, and the program.
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$ROOT/tests/preload/lib.sh"

# Debian's, whatever else is in the path.
PATH=/usr/bin:$PATH
mkdir -p one/src two/src
cat >one/Cargo.toml <<'CODE'
[package]
name = "one"
version = "0.1.0"
edition = "2021"
[dependencies]
two = { path = "../two" }
[profile.release]
debug = false
CODE
cat >two/Cargo.toml <<'CODE'
[package]
name = "two"
version = "0.1.0"
edition = "2021"
CODE
cat >two/src/lib.rs <<'CODE'
use std::collections::{BTreeMap, HashMap, VecDeque};

pub struct Random(pub u64);
impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }
}
pub fn hash(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf29ce484222325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100000001b3))
}
#[repr(align(256))]
#[derive(Clone)]
struct Wide(u64);
pub fn work(seed: u64) -> String {
    let mut random = Random(seed);
    let mut map: HashMap<String, Vec<u64>> = HashMap::new();
    let mut queue = VecDeque::new();
    for i in 0..60000 {
        map.entry(format!("k{}", random.next() % 5000)).or_default().push(i);
        queue.push_back(vec![i as u8; (random.next() % 300) as usize]);
        if queue.len() > 1000 {
            queue.pop_front();
        }
    }
    let sorted: BTreeMap<_, _> = map.into_iter().collect();
    let text = format!("{:?}", sorted);
    let wide: Vec<Box<Wide>> = (0..1000).map(|i| Box::new(Wide(i))).collect();
    assert!(wide.iter().all(|w| &**w as *const Wide as usize % 256 == 0));
    let mut grow = String::new();
    for i in 0..100000 {
        grow.push_str(&i.to_string());
    }
    format!("{} {:x} {:x} {} {}", seed, hash(text.as_bytes()), hash(grow.as_bytes()),
        wide.iter().map(|w| w.0).sum::<u64>(), queue.iter().map(Vec::len).sum::<usize>())
}
#[cfg(test)]
mod tests {
    #[test]
    fn same() {
        assert_eq!(super::work(3), super::work(3));
    }
    #[test]
    #[should_panic(expected = "nothing")]
    fn panics() {
        let nothing: Option<Box<i32>> = None;
        nothing.expect("nothing");
    }
}
CODE
cat >one/src/main.rs <<'CODE'
use std::sync::{mpsc, Arc, Mutex};
use std::thread;

fn main() {
    let (send, receive) = mpsc::channel();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (1..=12).map(|seed| {
        let (send, kept) = (send.clone(), Arc::clone(&kept));
        thread::spawn(move || {
            let said = two::work(seed);
            kept.lock().unwrap().push(said.len());
            send.send(said).unwrap();
        })
    }).collect();
    drop(send);
    let mut all: Vec<String> = receive.iter().collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    all.sort();
    println!("{}\n{}", all.join("\n"), kept.lock().unwrap().len());
    let caught = std::panic::catch_unwind(|| vec![1, 2, 3][std::env::args().count() + 5]);
    println!("{}", caught.is_err());
    let mut much: Vec<u8> = Vec::new();
    println!("{}", much.try_reserve(1 << 60).is_err());
}
CODE
export CARGO_HOME=$PWD/cargo CARGO_NET_OFFLINE=true CARGO_INCREMENTAL=0
cd one
AS=build under cargo build --offline --release --quiet
AS=tests under cargo test --offline --quiet --package two |
    sed 's/finished in .*//'
under target/release/one >output
expect 'the last line' "$(tail -n 1 output)" 'true'
cat output
sed -i "s,$HOME,,g" Cargo.lock
sha256sum Cargo.lock
