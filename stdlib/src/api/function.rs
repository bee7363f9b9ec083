//! One Rust closure as a function of Rhai's: in each number of arguments, or as a value.

use super::call::Call;
use super::entry::LazySignature;
use super::native_name;
use crate::error::Result;
use rhai::{Dynamic, FnPtr, FuncRegistration, Module, NativeCallContext, RhaiFunc, Shared};
use std::any::TypeId;
use std::rc::Rc;

/// So many arguments too many are still matched, so that the `TypeError` can say where the call stands.
const SURPLUS: usize = 1;

/// What a call does.
pub(super) type Body = Box<dyn Fn(&mut Call<'_>) -> Result>;

/// A call: what it takes, what it does.
pub(super) struct Function {
    signature: LazySignature,
    /// The type whose method it is.
    this: Option<TypeId>,
    body: Body,
}

impl Function {
    pub(super) fn new(signature: LazySignature, this: Option<TypeId>, body: Body) -> Rc<Self> {
        Rc::new(Self {
            signature,
            this,
            body,
        })
    }

    /// Puts it into a module in every number of arguments that it is told about, to be called with the module's name alone, unless it is
    /// the `global` one. `doc` goes into Rhai's own metadata.
    pub(super) fn add_all(self: &Rc<Self>, module: &mut Module, global: bool, doc: Option<&str>) {
        let signature = &self.signature;
        for arity in 0..=signature.most() + SURPLUS {
            let registration = FuncRegistration::new(signature.name);
            let registration = match global {
                true => registration.in_global_namespace(),
                false => registration.in_internal_namespace(),
            };
            self.add(module, registration, arity, doc);
        }
    }

    /// Puts it into a module for `arity` arguments.
    pub(super) fn add(
        self: &Rc<Self>,
        module: &mut Module,
        mut registration: FuncRegistration,
        arity: usize,
        doc: Option<&str>,
    ) {
        let types: Vec<TypeId> = self
            .this
            .into_iter()
            .chain(std::iter::repeat_n(TypeId::of::<Dynamic>(), arity))
            .collect();
        if let Some(doc) = doc {
            registration = registration
                .with_params_info(self.params_info(arity))
                .with_comments(
                    doc.lines()
                        .map(|line| format!("/// {line}"))
                        .collect::<Vec<_>>(),
                );
        }
        let itself = self.clone();
        let func = Shared::new(
            move |ctx: Option<NativeCallContext<'_>>, args: &mut [&mut Dynamic]| {
                itself.run(&ctx.expect("registered with a context"), args)
            },
        );
        // A method works on the object itself. A function gets values of its own: what it takes is no variable of the script.
        let function = if self.this.is_some() {
            RhaiFunc::Method {
                func,
                has_context: true,
                is_pure: true,
                is_volatile: true,
            }
        } else {
            RhaiFunc::Pure {
                func,
                has_context: true,
                is_pure: true,
                is_volatile: true,
            }
        };
        registration.set_into_module_raw(module, types, function);
    }

    fn params_info(&self, arity: usize) -> Vec<String> {
        let this = self.this.iter().map(|_| "this");
        let params = self.signature.params.iter().take(arity).map(|p| p.name);
        this.chain(params)
            .chain(["Dynamic"])
            .map(str::to_owned)
            .collect()
    }

    fn run(
        &self,
        ctx: &NativeCallContext<'_>,
        args: &mut [&mut Dynamic],
    ) -> std::result::Result<Dynamic, Box<rhai::EvalAltResult>> {
        let (this, rest) = match args {
            [this, rest @ ..] if self.this.is_some() => (Some(&mut **this), rest),
            rest => (None, rest),
        };
        let mut call = Call::new(ctx, &self.signature, this);
        call.read(rest)
            .and_then(|()| (self.body)(&mut call))
            .map_err(|error| error.into_rhai(ctx.call_source(), ctx.call_position()))
    }

    /// It as a value, which keeps its full name, by which another process finds it again.
    pub(super) fn pointer(self: &Rc<Self>, module: &str) -> FnPtr {
        let itself = self.clone();
        #[expect(
            deprecated,
            reason = "Rhai marks its volatile calls so; the version is pinned"
        )]
        FnPtr::from_fn(
            native_name(module, self.signature.name()),
            move |ctx, args: &mut [&mut Dynamic]| itself.run(&ctx, args),
        )
        .expect("the name of a registered function is a valid identifier")
    }
}
