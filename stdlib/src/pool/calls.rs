//! The pool's calls that give it work.

use super::imap::ResultIterator;
use super::items;
use super::job::{Job, Terms};
use super::progress::Progress;
use super::result::AsyncResult;
use super::task::Shape;
use super::{Pool, inner, retries};
use crate::api::{Call, Registry};
use crate::error::{Kind, Result, raise};
use crate::places;
use mphost_core::clock::Deadline;
use rhai::{Array, Dynamic};
use std::rc::Rc;

/// At which places of a call's arguments its options are.
#[derive(Clone, Copy)]
struct Options {
    callbacks: Option<usize>,
    timeout: usize,
}

const APPLY: Options = Options {
    callbacks: None,
    timeout: 3,
};
const APPLY_ASYNC: Options = Options {
    callbacks: Some(3),
    timeout: 5,
};
const MAP: Options = Options {
    callbacks: None,
    timeout: 3,
};
const MAP_ASYNC: Options = Options {
    callbacks: Some(3),
    timeout: 5,
};

/// Registers the calls.
pub(super) fn register(registry: &mut Registry) {
    registry
        .class::<Pool>("Pool")
        .method(
            "apply(func: callable, args: array = [], *, kwds: map = (), timeout: seconds = (), retries: int = ())",
            "Calls `func(…args)` in a worker and gives its value, or raises what it threw. `kwds` follows the arguments as one object map.\n\n\
             ```rhai\nfn add(a, b) { a + b }\nwith Pool(1) as pool {\n    print(pool.apply(add, [1, 2]));\n}\n```",
            |call| {
                let (pool, job) = apply(call, APPLY)?;
                pool.inner.wait_for(&job, Deadline::NEVER, places::of_call(call.ctx))?;
                inner::unwrap(job.take_outcome())
            },
        )
        .method(
            "apply_async(func: callable, args: array = [], *, kwds: map = (), callback: callable = (), error_callback: callable = (), \
             timeout: seconds = (), retries: int = ())",
            "Gives `func(…args)` to a worker and returns at once, with an `AsyncResult`.\n\n\
             `callback(value)` or `error_callback(error)` is called in this process when it is done: while this process waits in any call of the \
             host, or between two steps of a script that only computes.",
            |call| {
                let (pool, job) = apply(call, APPLY_ASYNC)?;
                Ok(Dynamic::from(AsyncResult { pool: pool.inner, job }))
            },
        );
    maps(registry);
    iterators(registry);
}

fn maps(registry: &mut Registry) {
    registry
        .class::<Pool>("Pool")
        .method(
            "map(func: callable, iterable: items, chunksize: int = (), *, timeout: seconds = (), retries: int = (), progress: any = ())",
            "Calls `func(item)` for each item of `iterable`, in the workers; gives an array of the values, in order.\n\n\
             The items go to the workers in chunks of `chunksize`. If a call throws, the others are run all the same; then the first error is raised. \
             `progress: true`, or a label, shows a bar on standard error if that is a terminal.",
            |call| map(call, Shape::Map),
        )
        .method(
            "starmap(func: callable, iterable: items, chunksize: int = (), *, timeout: seconds = (), retries: int = (), progress: any = ())",
            "Like `map`, where each item is an array of arguments.\n\n\
             ```rhai\nfn add(a, b) { a + b }\nwith Pool(2) as pool {\n    print(pool.starmap(add, [[1, 2], [3, 4]]));\n}\n```",
            |call| map(call, Shape::Starmap),
        )
        .method(
            "map_async(func: callable, iterable: items, chunksize: int = (), *, callback: callable = (), error_callback: callable = (), \
             timeout: seconds = (), retries: int = (), progress: any = ())",
            "Like `map`, but returns at once, with an `AsyncResult`. `callback` gets the whole array.",
            |call| map_async(call, Shape::Map),
        )
        .method(
            "starmap_async(func: callable, iterable: items, chunksize: int = (), *, callback: callable = (), error_callback: callable = (), \
             timeout: seconds = (), retries: int = (), progress: any = ())",
            "Like `starmap`, but returns at once, with an `AsyncResult`.",
            |call| map_async(call, Shape::Starmap),
        );
}

fn iterators(registry: &mut Registry) {
    registry
        .class::<Pool>("Pool")
        .method(
            "imap(func: callable, iterable: items, chunksize: int = 1, *, timeout: seconds = (), retries: int = (), progress: any = ())",
            "Like `map`, but gives an iterator over the values, in the order of the items: for `for` loops, or by `next(timeout)`.\n\n\
             The input is drawn as the values are taken, only some way ahead. What a call throws is raised at its place, and the iterator goes on \
             behind it.\n\n\
             ```rhai\nfn square(x) { x * x }\nwith Pool(2) as pool {\n    for y in pool.imap(square, [1, 2, 3]) { print(y); }\n}\n```",
            |call| imap(call, true),
        )
        .method(
            "imap_unordered(func: callable, iterable: items, chunksize: int = 1, *, timeout: seconds = (), retries: int = (), progress: any = ())",
            "Like `imap`, but gives each value as soon as it is there, in any order.",
            |call| imap(call, false),
        );
}

fn begin(call: &Call<'_>) -> Result<Pool> {
    let pool: Pool = call.this();
    pool.inner.check_running()?;
    pool.remember(call.ctx);
    Ok(pool)
}

/// What a call's options say; `total` is the number of its calls where it is known.
fn terms(
    call: &mut Call<'_>,
    pool: &Pool,
    shape: Shape,
    at: Options,
    total: Option<usize>,
) -> Result<Terms> {
    let pointer = call.callable(0).expect("the signature asks for a function");
    let function = pool.inner.function(&pointer)?;
    let again = at.timeout + 1;
    Ok(Terms {
        shape,
        function,
        limit: call.seconds(at.timeout).or(pool.inner.limit),
        retries: if call.has(again) {
            retries(call.int(again))
        } else {
            pool.inner.retries
        },
        callback: at
            .callbacks
            .and_then(|index| call.callable(index))
            .map(crate::later::with_own_handles),
        error_callback: at
            .callbacks
            .and_then(|index| call.callable(index + 1))
            .map(crate::later::with_own_handles),
        progress: Progress::new(&call.take(again + 1), total)?,
    })
}

fn apply(call: &mut Call<'_>, at: Options) -> Result<(Pool, Rc<Job>)> {
    let pool = begin(call)?;
    let terms = terms(call, &pool, Shape::Call, at, None)?;
    let args = match call.take(1) {
        args if args.is_unit() => Dynamic::from_array(Array::new()),
        args => args,
    };
    let job = Job::one(terms);
    pool.inner.submit_call(&job, &args, &call.take(2))?;
    Ok((pool, job))
}

/// Gives a map's tasks to the workers.
fn begin_map(call: &mut Call<'_>, shape: Shape, at: Options) -> Result<(Pool, Rc<Job>)> {
    let pool = begin(call)?;
    let chunk = chunksize(call)?;
    let items = crate::items::collect(call.ctx, call.take(1))?;
    // Python's: about four chunks for each worker.
    let chunk = chunk.unwrap_or_else(|| items.len().div_ceil(pool.inner.workers() * 4).max(1));
    let job = Job::map(
        terms(call, &pool, shape, at, Some(items.len()))?,
        items.len(),
        chunk,
    );
    pool.inner.submit_map(&job, &items, chunk)?;
    Ok((pool, job))
}

fn chunksize(call: &Call<'_>) -> Result<Option<usize>> {
    let Some(size) = call.int(2) else {
        return Ok(None);
    };
    if size < 1 {
        return Err(raise(
            Kind::ValueError,
            format!("Chunksize must be 1+, not {size}"),
        ));
    }
    Ok(Some(usize::try_from(size).unwrap_or(usize::MAX)))
}

fn map(call: &mut Call<'_>, shape: Shape) -> Result {
    let (pool, job) = begin_map(call, shape, MAP)?;
    pool.inner
        .wait_for(&job, Deadline::NEVER, places::of_call(call.ctx))?;
    inner::unwrap(job.take_outcome())
}

fn map_async(call: &mut Call<'_>, shape: Shape) -> Result {
    let (pool, job) = begin_map(call, shape, MAP_ASYNC)?;
    Ok(Dynamic::from(AsyncResult {
        pool: pool.inner,
        job,
    }))
}

fn imap(call: &mut Call<'_>, ordered: bool) -> Result {
    let pool = begin(call)?;
    let chunk = chunksize(call)?.unwrap_or(1);
    let source = items::source(call.ctx, call.take(1))?;
    // An iterator that doesn't know how many items are left says 0 at least, and no most.
    let total = match source.size_hint() {
        (least, Some(most)) if least == most => Some(most),
        _ => None,
    };
    let job = Job::stream(
        terms(call, &pool, Shape::Each, MAP, total)?,
        source,
        chunk,
        ordered,
    );
    pool.inner.submit_stream(&job)?;
    Ok(Dynamic::from(ResultIterator {
        pool: pool.inner,
        job,
    }))
}
