//! Whatever happens on the way, in the end the client has what the server has for it.

use proptest::prelude::*;
use xds::type_url::{ResourceType, Variant};

use crate::world::{BAD, KINDS, World, name};

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
enum Event {
    Put(ResourceType, u8, u8),
    Take(ResourceType, u8),
    Subscribe(ResourceType, u8),
    Unsubscribe(ResourceType, u8),
    Speak,
    Hear,
    Listen,
    Reconnect,
    Wait(u16),
    Lose(bool),
    Repeat(bool),
    Reorder(bool),
}

fn kind() -> impl Strategy<Value = ResourceType> {
    proptest::sample::select(KINDS.as_slice())
}

fn orderly() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (kind(), 0..3_u8, BAD..4).prop_map(|(kind, name, content)| Event::Put(kind, name, content)),
        1 => (kind(), 0..3_u8).prop_map(|(kind, name)| Event::Take(kind, name)),
        2 => (kind(), 0..4_u8).prop_map(|(kind, name)| Event::Subscribe(kind, name)),
        1 => (kind(), 0..4_u8).prop_map(|(kind, name)| Event::Unsubscribe(kind, name)),
        4 => Just(Event::Speak),
        4 => Just(Event::Hear),
        4 => Just(Event::Listen),
        1 => Just(Event::Reconnect),
        1 => (0..8000_u16).prop_map(Event::Wait),
    ]
}

fn disorderly() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => orderly(),
        1 => any::<bool>().prop_map(Event::Lose),
        1 => any::<bool>().prop_map(Event::Repeat),
        1 => any::<bool>().prop_map(Event::Reorder),
    ]
}

fn variant() -> impl Strategy<Value = Variant> {
    prop_oneof![Just(Variant::StateOfTheWorld), Just(Variant::Incremental)]
}

impl World {
    fn happen(&mut self, event: Event) {
        self.log.push(format!("{event:?}"));
        match event {
            Event::Put(kind, number, content) => self.put(kind, name(number), content),
            Event::Take(kind, number) => self.take(kind, name(number)),
            Event::Subscribe(kind, number) => self.subscribe(kind, name(number)),
            // In the state of the world, whoever gives up everything and wants it again cannot be sure to be understood
            // before the next stream.
            Event::Unsubscribe(_, 3) if self.variant == Variant::StateOfTheWorld => {}
            Event::Unsubscribe(kind, number) => self.unsubscribe(kind, name(number)),
            Event::Speak => self.speak(),
            Event::Hear => drop(self.hear()),
            Event::Listen => self.listen(),
            Event::Reconnect => self.connect(),
            Event::Wait(millis) => self.now += std::time::Duration::from_millis(millis.into()),
            Event::Lose(up) => {
                let lost = if up {
                    self.to_server.pop_back().is_some()
                } else {
                    self.to_client.pop_back().is_some()
                };
                self.disturbed |= lost;
            }
            Event::Repeat(true) => {
                let message = self.to_server.front().cloned();
                self.disturbed |= message.is_some();
                self.to_server.extend(message);
            }
            Event::Repeat(false) => {
                let message = self.to_client.front().cloned();
                self.disturbed |= message.is_some();
                self.to_client.extend(message);
            }
            Event::Reorder(true) => {
                self.disturbed |= self.to_server.len() > 1;
                self.to_server.make_contiguous().reverse();
            }
            Event::Reorder(false) => {
                self.disturbed |= self.to_client.len() > 1;
                self.to_client.make_contiguous().reverse();
            }
        }
    }
}

proptest! {
    /// A stream keeps messages in order, and loses none while it lives.
    #[test]
    fn on_streams_that_live_and_break(
        variant in variant(),
        events in proptest::collection::vec(orderly(), 0..80),
    ) {
        let mut world = World::new(variant);
        events.into_iter().for_each(|event| world.happen(event));
        world.rest();
        world.assert_in_step();
    }

    /// Neither half relies on that before the next stream begins.
    #[test]
    fn on_streams_that_lose_repeat_and_reorder(
        variant in variant(),
        events in proptest::collection::vec(disorderly(), 0..80),
    ) {
        let mut world = World::new(variant);
        events.into_iter().for_each(|event| world.happen(event));
        if world.disturbed {
            world.connect();
        }
        world.rest();
        world.assert_in_step();
    }
}
