(* Ranks.v -- T12 (split) for the decoder of Decoder.v: a machine on which the terms of every sum
   lie on ranks has the bits of one loop.  Terms are dealt out in any way, each rank adds its own in
   a tree of its own, the ranks' sums are added in any tree, and only then is anything narrowed.

   Of minikv/parallel this covers the sums: those of a product whose columns are dealt out (that of
   attention's heads by o_proj, that of the MLP's width by down_proj), and those of the grid of the
   whole row.  Here all sums may be dealt out, also those that Python leaves to one rank.

   Not covered: that Python's ranks are this machine.  Heads are not dealt to processes here, and
   rows of the embedding and of the output matrix are not gathered: the decoder makes each head
   and each row by itself already.  The largest number of a row is taken of the whole row, where
   ranks take a maximum of maxima (MergeBits.v has a theorem on that); that all ranks come to
   every meeting, and get the same answer there, is no part of it. *)
From Coq Require Import Reals List Permutation Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Markov Machines MergeBits.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Opaque one.

(* What a rank adds, in a tree of its own; and what the ranks add, in a tree of ranks. *)
Inductive added (A : Type) := Nothing | Term (a : A) | Plus (l r : added A).
Inductive reduced (A : Type) := Rank (own : added A) | Join (l r : reduced A).
Arguments Nothing {A}.
Arguments Term {A} a.
Arguments Plus {A} l r.
Arguments Rank {A} own.
Arguments Join {A} l r.

Fixpoint terms {A} (t : added A) : list A :=
  match t with Nothing => [] | Term a => [a] | Plus l r => terms l ++ terms r end.
Fixpoint all_terms {A} (t : reduced A) : list A :=
  match t with Rank own => terms own | Join l r => all_terms l ++ all_terms r end.

(* A split: each term is on one rank, once. *)
Record split := { ranks_of : forall A, list A -> reduced A;
                  complete : forall A (xs : list A), Permutation (all_terms (ranks_of A xs)) xs }.

(* `out` is what is done to a rank's sum before it is sent: nothing, but in the control. *)
Fixpoint own_sum {A} (term : A -> float) (t : added A) : float :=
  match t with
  | Nothing => 0%float
  | Term a => term a
  | Plus l r => (own_sum term l + own_sum term r)%float
  end.
Fixpoint rank_sum {A} (out : float -> float) (term : A -> float) (t : reduced A) : float :=
  match t with
  | Rank own => out (own_sum term own)
  | Join l r => (rank_sum out term l + rank_sum out term r)%float
  end.
Definition sent (x : float) : float := x.
Definition plain (x : float) : float := x.
Definition product (p : float * float) : float := (fst p * snd p)%float.

(* No rank trusts an estimate of its own: every grid comes from `total`. *)
Definition ranks (s : split) : D.machine :=
  {| D.sum xs := rank_sum sent plain (ranks_of s _ xs);
     D.dot xs ws := rank_sum sent product (ranks_of s _ (combine xs ws));
     D.estimate xs := rank_sum sent plain (ranks_of s _ xs);
     D.doubts _ := true |}.

Lemma rank_sum_tree {A} (term : A -> float) (leaf : A -> b64 * b64) (t : reduced A) :
  (forall a, exists u, bleaves u = [leaf a] /\ B (term a) = beval u) ->
  exists u, bleaves u = map leaf (all_terms t) /\ B (rank_sum sent term t) = beval u.
Proof.
  intros H.
  assert (Own : forall o, exists u, bleaves u = map leaf (terms o)
    /\ B (own_sum term o) = beval u).
  { induction o as [|a|l (u & L & E) r (v & K & F)].
    - exists BZero. split; [reflexivity | exact B_0].
    - exact (H a).
    - exists (BAdd u v). cbn [bleaves beval own_sum terms].
      now rewrite map_app, L, K, B_add, E, F. }
  induction t as [o|l (u & L & E) r (v & K & F)].
  - exact (Own o).
  - exists (BAdd u v). cbn [bleaves beval rank_sum all_terms].
    now rewrite map_app, L, K, B_add, E, F.
Qed.

Theorem ranks_orderly s : orderly (ranks s).
Proof.
  assert (S : forall xs, exists t, Permutation (bleaves t) (singles xs)
    /\ B (rank_sum sent plain (ranks_of s _ xs)) = beval t).
  { intros xs. destruct (rank_sum_tree plain (fun x => (B x, one)) (ranks_of s _ xs))
      as (t & L & E).
    - intros x. exists (BNum (B x)). now split.
    - exists t. split; [|exact E]. rewrite L. apply Permutation_map, complete. }
  split; intros xs.
  - destruct (S xs) as (t & P & E). exists t, []. split; [constructor|]. rewrite app_nil_r. auto.
  - intros ws. destruct (rank_sum_tree product (fun p => (B (fst p), B (snd p)))
      (ranks_of s _ (combine xs ws))) as (t & L & E).
    + intros p. exists (BMul (B (fst p)) (B (snd p))). split; [reflexivity | apply B_mul].
    + exists t, []. split; [constructor|]. rewrite app_nil_r. split; [|exact E].
      rewrite L, pairs_combine. apply Permutation_map, complete.
  - destruct (S xs) as (t & P & E). exists t, []. split; [constructor|]. rewrite app_nil_r.
    split; [exact P|]. split; [|exact E]. rewrite (Permutation_length P). unfold singles.
    now rewrite map_length.
Qed.

(* T12: the logits of one process, bit for bit, whatever the split. *)
Theorem split_logits s m tokens : loaded m ->
  D.logits (ranks s) m tokens = D.logits D.loops m tokens.
Proof. intros L. apply logits_same; [apply ranks_orderly | exact L]. Qed.

(* The same with a cache, in any chunks, with a split of its own for each row at each layer. *)
Theorem split_logits_cached (sk sg : nat -> nat -> list float -> split) (su : list float -> split)
  m chunks : loaded m ->
  fst (decode (D.embed m) (mixed_unembed (fun h => ranks (su h)) m)
    (mixed_layers (fun l p h => ranks (sk l p h)) (fun l p h => ranks (sg l p h)) m) chunks)
  = D.logits D.loops m (concat chunks).
Proof. intros L. apply any_machines_any_chunks; auto using ranks_orderly. Qed.

(* Control: ranks that narrow their sums before they send them.  2^24 + 1 and -2^24 are 1 in all,
   and 0 where the first rank has two of the three terms and sends a float32. *)
Definition three : reduced float :=
  Join (Rank (Plus (Term 0x1p24%float) (Term 1%float))) (Rank (Term (-0x1p24)%float)).
Theorem narrowed_parts_differ :
  rank_sum sent plain three = 1%float /\ rank_sum D.narrow plain three = 0%float.
Proof. split; vm_compute; reflexivity. Qed.

Print Assumptions ranks_orderly.
Print Assumptions split_logits.
Print Assumptions split_logits_cached.
Print Assumptions narrowed_parts_differ.
