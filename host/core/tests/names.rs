//! Names: every process finds what one published, and nothing of it stays.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{P, finish, finish_well, in_session, kill, start};
use mphost_core::names;
use mphost_core::session::session;
use mphost_core::shared::Block;

#[test]
fn a_name_leads_every_process_to_the_same_block() {
    in_session(|| {
        let block = Block::create(100, P).unwrap();
        assert!(names::publish("data", block.obj(), P).unwrap());
        let child = start("child", || {
            let found = names::find("data").unwrap().unwrap();
            Block::from_ref(found).unwrap().set(8, 7_u64).unwrap();
        });
        finish_well(child);
        assert_eq!(block.get::<u64>(8).unwrap(), 7);
        assert!(names::find("date").unwrap().is_none());
    });
}

#[test]
fn a_name_is_given_once_and_taken_back_once() {
    in_session(|| {
        let first = Block::create(8, P).unwrap();
        let second = Block::create(8, P).unwrap();
        assert!(names::publish("n", first.obj(), P).unwrap());
        assert!(!names::publish("n", second.obj(), P).unwrap());
        assert!(names::remove("n").unwrap());
        assert!(!names::remove("n").unwrap());
        assert!(names::find("n").unwrap().is_none());
        assert!(names::publish("n", second.obj(), P).unwrap());
        assert_eq!(names::find("n").unwrap().unwrap(), *second.obj());
    });
}

#[test]
fn a_name_keeps_its_block_alive_and_nothing_else_does() {
    in_session(|| {
        // The first table stays.
        let block = Block::create(8, P).unwrap();
        names::publish("first", block.obj(), P).unwrap();
        let before = session().usage().unwrap();
        let block = Block::create(1 << 20, P).unwrap();
        names::publish("large", block.obj(), P).unwrap();
        drop(block);
        let child = start("child", || {
            let found = names::find("large").unwrap().unwrap();
            assert_eq!(Block::from_ref(found).unwrap().len(), 1 << 20);
            names::remove("large").unwrap();
        });
        finish_well(child);
        assert_eq!(session().usage().unwrap().objects, before.objects);
        assert_eq!(session().usage().unwrap().pages, before.pages);
    });
}

#[test]
fn there_is_room_for_many_names() {
    in_session(|| {
        let block = Block::create(8, P).unwrap();
        for n in 0..500 {
            assert!(names::publish(&format!("name {n}"), block.obj(), P).unwrap());
        }
        for n in 0..500 {
            assert!(!names::publish(&format!("name {n}"), block.obj(), P).unwrap());
            assert!(names::find(&format!("name {n}")).unwrap().is_some());
        }
        for n in (0..500).rev() {
            assert!(names::remove(&format!("name {n}")).unwrap());
        }
        assert!(names::find("name 0").unwrap().is_none());
    });
}

#[test]
fn names_are_neither_empty_nor_endless() {
    in_session(|| {
        let block = Block::create(8, P).unwrap();
        let long = "é".repeat(128);
        for name in ["", long.as_str()] {
            assert!(names::publish(name, block.obj(), P).is_err());
            assert!(names::find(name).is_err());
            assert!(names::remove(name).is_err());
        }
        assert!(names::publish(&long[..254], block.obj(), P).unwrap());
        assert!(names::publish("a\n:\0b", block.obj(), P).unwrap());
        assert!(names::find("a\n:\0c").unwrap().is_none());
    });
}

#[test]
fn processes_that_die_while_they_name_leave_the_directory_whole() {
    in_session(|| {
        for round in 0..20 {
            let child = start("child", || {
                let block = Block::create(8, P).unwrap();
                for n in 0.. {
                    let name = format!("{}", n % 7);
                    names::publish(&name, block.obj(), P).unwrap();
                    names::remove(&name).unwrap();
                }
            });
            let block = Block::create(8, P).unwrap();
            for n in 0..200 * (round + 1) {
                let name = format!("mine {}", n % 3);
                assert!(names::publish(&name, block.obj(), P).unwrap());
                assert!(names::remove(&name).unwrap());
            }
            kill(child);
            finish(child);
        }
    });
}
