//! What a manager's clients and its server say to each other.
//!
//! A request is one frame: the number of an operation, the object's id, and an array of arguments. Its answer is one frame: a status
//! and a value. A client has one request under way on a connection at a time; only [`Op::Cancel`] may follow it. Operations that
//! need no answer ([`Op::is_one_way`]) get none.
//!
//! Invariant: client and server are one build of one program, or the version in front of every message tells them apart; so
//! the numbers needn't be stable.

/// Declares [`Op`], its names, and the way back from its number.
macro_rules! operations {
    ($($name:ident $text:literal),+ $(,)?) => {
        /// An operation of the server or of an object in it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub(super) enum Op { $($name),+ }

        impl Op {
            const ALL: &[Op] = &[$(Op::$name),+];

            /// Python's name of the method.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Op::$name => $text),+ }
            }
        }
    };
}

operations! {
    // The server's own.
    Hello "hello", Create "create", Cancel "cancel", Hold "hold", Drop "drop", Lend "lend", Shutdown "shutdown",
    Count "number_of_objects", Leave "leave",
    // A method of a script's object, by its name: the first argument.
    Call "call",
    // Containers.
    GetItem "__getitem__", SetItem "__setitem__", DelItem "__delitem__", Contains "__contains__", Len "__len__",
    Get "get", Pop "pop", PopItem "popitem", Keys "keys", Values "values", Items "items", Update "update",
    SetDefault "setdefault", Clear "clear", Append "append", Extend "extend", Insert "insert", Remove "remove",
    Index "index", Count2 "count", Reverse "reverse", Sort "sort", SortBy "sort_by", Snapshot "snapshot",
    GetSlice "__getslice__", SetSlice "__setslice__", Repeat "__imul__",
    // Sets.
    Add "add", Discard "discard", Relate "relate", Assign "assign", Reduce "reduce",
    // Namespaces, values.
    GetAttr "__getattribute__", SetAttr "__setattr__", DelAttr "__delattr__", Set "set",
    // Synchronisation.
    Acquire "acquire", Release "release", Recover "recover", Locked "locked", Wait "wait", Notify "notify", NotifyAll "notify_all",
    IsSet "is_set", Reset "reset", Abort "abort", Parties "parties", Waiting "n_waiting", Broken "broken",
    // Queues.
    Put "put", TaskDone "task_done", Join "join", QSize "qsize", Empty "empty", Full "full",
}

impl Op {
    /// The operation of that name, among those of objects.
    pub(super) fn from_name(name: &str) -> Option<Op> {
        Op::ALL
            .iter()
            .copied()
            .find(|op| op.name() == name && *op as u8 > Op::Call as u8)
    }

    /// The operation of that number.
    pub(super) fn from_number(number: i64) -> Option<Op> {
        Op::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Whether nobody waits for an answer.
    pub(super) const fn is_one_way(self) -> bool {
        matches!(
            self,
            Op::Hello | Op::Cancel | Op::Hold | Op::Drop | Op::Lend | Op::Leave
        )
    }
}

/// How an answer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// The result follows.
    Done = 0,
    /// What was thrown follows.
    Thrown = 1,
    /// The request was cancelled; `()` follows.
    Cancelled = 2,
}

impl Status {
    pub(super) fn from_number(number: i64) -> Option<Status> {
        [Status::Done, Status::Thrown, Status::Cancelled]
            .into_iter()
            .find(|status| *status as i64 == number)
    }
}

/// Declares [`Tag`], its texts, and the way back from its number.
macro_rules! tags {
    ($($name:ident $typeid:literal),+ $(,)?) => {
        /// What kind of object a proxy stands for: it decides which methods the proxy has.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub(super) enum Tag { $($name),+ }

        impl Tag {
            const ALL: &[Tag] = &[$(Tag::$name),+];

            /// The name under which a manager makes such an object.
            pub(super) const fn typeid(self) -> &'static str {
                match self { $(Tag::$name => $typeid),+ }
            }
        }
    };
}

tags! {
    Dict "dict", List "list", Set "set", Namespace "Namespace", Value "Value", Array "Array", Lock "Lock", RLock "RLock",
    Semaphore "Semaphore", BoundedSemaphore "BoundedSemaphore", Condition "Condition", Event "Event", Barrier "Barrier",
    Queue "Queue", JoinableQueue "JoinableQueue", Pool "Pool", AsyncResult "AsyncResult", Iterator "Iterator", Object "object",
}

impl Tag {
    /// The tag of that number.
    pub(super) fn from_number(number: i64) -> Option<Tag> {
        Tag::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// The tag of that name, if a manager makes such objects by itself.
    pub(super) fn from_typeid(typeid: &str) -> Option<Tag> {
        Tag::ALL
            .iter()
            .copied()
            .find(|tag| tag.typeid() == typeid && (*tag as u8) < Tag::AsyncResult as u8)
    }

    /// The proxy's class, CPython's name.
    pub(super) const fn proxy_class(self) -> &'static str {
        match self {
            Tag::Dict => "DictProxy",
            Tag::List => "ListProxy",
            Tag::Set => "SetProxy",
            Tag::Namespace => "NamespaceProxy",
            Tag::Value => "ValueProxy",
            Tag::Array => "ArrayProxy",
            Tag::Lock | Tag::RLock | Tag::Semaphore | Tag::BoundedSemaphore => "AcquirerProxy",
            Tag::Condition => "ConditionProxy",
            Tag::Event => "EventProxy",
            Tag::Barrier => "BarrierProxy",
            Tag::Queue | Tag::JoinableQueue => "QueueProxy",
            Tag::Pool => "PoolProxy",
            Tag::AsyncResult => "AsyncResultProxy",
            Tag::Iterator => "IteratorProxy",
            Tag::Object => "AutoProxy",
        }
    }
}

/// The longest message that a server or a client takes, in bytes.
pub(super) const MESSAGE_LIMIT: usize = 2 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back() {
        for op in Op::ALL {
            assert_eq!(Op::from_number(*op as i64), Some(*op));
        }
        assert_eq!(Op::from_number(-1), None);
        for tag in Tag::ALL {
            assert_eq!(Tag::from_number(*tag as i64), Some(*tag));
        }
        assert_eq!(Tag::from_typeid("dict"), Some(Tag::Dict));
        assert_eq!(Tag::from_typeid("object"), None);
        assert_eq!(Status::from_number(1), Some(Status::Thrown));
    }
}
