(* Caches.v -- KV-Direct's caches as programs.  `Residual` keeps K/V of the newest tokens and
  residual
   checkpoints: of tokens, the embedding, every layer, every k-th, any set with layer 0;
     it may forget
   rows behind windows, and go back.  `Scheduled` keeps what a schedule says.  Residual.v and
   Truncate.v prove that both give what the full cache gives.
    This file proves nothing and assumes nothing. *)
From Coq Require Import List Arith Bool PrimFloat.
From Minikv Require Import Markov Truncate Decoder.
Import ListNotations.

Section Residual.
Context {Tok V KV Out : Type}.
Variable emb : nat -> Tok -> V.
Variable head : V -> Out.
Variable blank : KV.                    (* stands where rows are forgotten *)

(* What a layer keeps of the tokens from position `first` on, beside K/V of the newest. *)
Inductive kept := Nothing | Tokens (ts : list Tok) | Rows (hs : list V).
Record store := { checkpoint : kept; first : nat; recent : list KV }.
Definition keeps_rows (s : store) : bool :=
  match checkpoint s with Nothing => false | _ => true end.

(* The stream before this layer of the tokens that have no K/V any more, from its checkpoint. *)
Definition evicted_rows (s : store) (evicted : nat) : list V :=
  match checkpoint s with
  | Nothing => []
  | Tokens ts => mapi_from (first s) emb (firstn (evicted - first s) ts)
  | Rows hs => firstn (evicted - first s) hs
  end.
Definition grown (c : kept) (ts : list Tok) (hs : list V) : kept :=
  match c with
  | Nothing => Nothing
  | Tokens old => Tokens (old ++ ts)
  | Rows old => Rows (old ++ hs)
  end.
(* Does the layer above need the stream of the evicted tokens from this one? *)
Definition carry_on (above : list store) : bool :=
  match above with s :: _ => negb (keeps_rows s) | [] => false end.

Variable budget : nat.
Variable chunk : option nat.            (* of rows that are forgotten together; None: never *)
Variable ls : list (@layer V KV).
Variable ws : list (option nat).        (* the window of each layer; None: it sees everything *)

(* Residual.update, layer by layer: `hs` are the rows of the new tokens `ts`, from position p on;
   the first `evicted` tokens have no K/V.  Theirs are recomputed, from the row `from` on, used and
   dropped. *)
Fixpoint extend_residual (ls : list (@layer V KV)) (stores : list store) (p evicted from : nat)
    (replayed : list V) (ts : list Tok) (hs : list V) : list V * list store :=
  match ls, stores with
  | L :: ls, s :: stores =>
      let from := if keeps_rows s then Nat.min (first s) evicted else from in
      let old := if keeps_rows s then evicted_rows s evicted else replayed in
      let old_kv := repeat blank from ++ mapi_from from (kv L) old in
      let ks := old_kv ++ recent s ++ mapi_from p (kv L) hs in
      let replayed := if carry_on stores then rows L from old old_kv else [] in
      let (hs', stores') := extend_residual ls stores p evicted from replayed ts (rows L p hs ks) in
      (hs', {| checkpoint := grown (checkpoint s) ts hs; first := first s;
               recent := skipn (length ks - budget) ks |} :: stores')
  | _, _ => (hs, [])
  end.

(* How far back a layer, and those above it up to the next checkpoint, see: ModelConfig.reach. *)
Fixpoint span (ws : list (option nat)) (stores : list store) : option nat :=
  match ws, stores with
  | Some w :: ws, _ :: above =>
      if carry_on above then option_map (Nat.add (w - 1)) (span ws above) else Some (w - 1)
  | _, _ => None
  end.
(* Residual.advance: rows that no later token can depend on are dropped, in chunks. *)
Definition forget_rows (size : nat) (needed : option nat) (seen : nat) (s : store) : store :=
  match needed with
  | None => s
  | Some needed =>
      let dropped := (seen - needed - first s) / size * size in
      {| checkpoint := match checkpoint s with
           | Nothing => Nothing
           | Tokens ts => Tokens (skipn dropped ts)
           | Rows hs => Rows (skipn dropped hs)
           end;
         first := first s + dropped; recent := recent s |}
  end.
Fixpoint forget (size : nat) (ws : list (option nat)) (stores : list store) (seen : nat) :=
  match ws, stores with
  | w :: ws', s :: above =>
      (if keeps_rows s then forget_rows size (span ws stores) seen s else s)
      :: forget size ws' above seen
  | _, _ => stores
  end.

(* Residual._truncate: can the cache go back to n tokens, or is what they depend on forgotten? *)
Fixpoint roomy (ws : list (option nat)) (stores : list store) (n : nat) : bool :=
  match ws, stores with
  | w :: ws', s :: above =>
      (negb (keeps_rows s) || (first s =? 0)
       || match span ws stores with Some needed => first s + needed <=? n | None => false end)
      && roomy ws' above n
  | _, _ => true
  end.
Definition cut (n evicted : nat) (s : store) : store :=
  {| checkpoint := match checkpoint s with
       | Nothing => Nothing
       | Tokens ts => Tokens (firstn (n - first s) ts)
       | Rows hs => Rows (firstn (n - first s) hs)
       end;
     first := first s; recent := firstn (n - evicted) (recent s) |}.

(* The logits so far, how many tokens have no K/V, and the stores. *)
Definition residual_state : Type := list Out * nat * list store.
Definition residual_read (state : residual_state) (ts : list Tok) : residual_state :=
  let '(outs, evicted, stores) := state in
  let p := length outs in
  let seen := p + length ts in
  let (hs, stores') := extend_residual ls stores p evicted 0 [] ts (mapi_from p emb ts) in
  (outs ++ map head hs, seen - budget,
   match chunk with None => stores' | Some size => forget size ws stores' seen end).
(* None: refused. *)
Definition residual_step (state : option residual_state) (s : step Tok) : option residual_state :=
  match state, s with
  | None, _ => None
  | Some state, Read ts => Some (residual_read state ts)
  | Some (outs, evicted, stores), Truncate n =>
      if roomy ws stores n
      then Some (firstn n outs, Nat.min evicted n, map (cut n evicted) stores) else None
  end.
Definition residual (kinds : list kept) (steps : list (step Tok)) : option residual_state :=
  fold_left residual_step steps
    (Some ([], 0, map (fun k => {| checkpoint := k; first := 0; recent := [] |}) kinds)).
End Residual.

(** * For the decoder of Decoder.v *)
Section Concrete.
Variable M : machine.
Variable m : model.

(* Residual(budget, checkpoints, forget, chunk): `tokens` stands for the first layer's, then whether
   to keep; `chunk` is None where nothing is forgotten.  None if a truncation is refused. *)
Definition kinds (tokens : bool) (kept_at : list bool) : list (@kept nat row) :=
  match map (fun k : bool => if k then Rows [] else Nothing) kept_at with
  | _ :: above => (if tokens then Tokens [] else Rows []) :: above
  | [] => []
  end.
Definition no_entry : kv_entry :=
  let zeros := repeat 0%float (head_dim (conf m)) in repeat (zeros, zeros) (groups (conf m)).
Definition decode_residual (budget : nat) (chunk : option nat) (tokens : bool)
    (kept_at : list bool) (steps : list (step nat)) : option (list row) :=
  option_map (fun state => fst (fst state))
    (residual (embed m) (unembed M m) no_entry budget chunk (layers M m) (map window (blocks m))
      (kinds tokens kept_at) steps).

(* Scheduled(schedule): schedule step layer position. *)
Definition decode_scheduled (schedule : nat -> nat -> nat -> want) (steps : list (step nat)) :=
  snd (fst (decode_ev_steps (embed m) (unembed M m) (layers M m)
    (fun calls => schedule (length calls - 1)) steps)).

(* The full cache. *)
Definition decode_full (steps : list (step nat)) : list row * list (list kv_entry) :=
  decode_steps (embed m) (unembed M m) (layers M m) steps.
End Concrete.
