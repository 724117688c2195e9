(* Lists.v -- a list mapped with the position of each element: what the decoders of Markov.v and
   Decoder.v are written with.  Rests on nothing. *)
From Coq Require Import List Lia ZArith.
Import ListNotations.

(* map, with the position: k for the first element *)
Fixpoint mapi_from {A B} (k : nat) (f : nat -> A -> B) (l : list A) : list B :=
  match l with [] => [] | x :: l => f k x :: mapi_from (S k) f l end.
Notation mapi := (mapi_from 0).

Lemma mapi_app {A B} (f : nat -> A -> B) l m : forall k,
  mapi_from k f (l ++ m) = mapi_from k f l ++ mapi_from (k + length l) f m.
Proof.
  induction l as [|x l IH]; intros k; simpl; [now rewrite Nat.add_0_r|].
  now rewrite IH, Nat.add_succ_r.
Qed.
Lemma mapi_length {A B} (f : nat -> A -> B) l : forall k, length (mapi_from k f l) = length l.
Proof. induction l; simpl; congruence. Qed.
Lemma mapi_ext {A B} (f g : nat -> A -> B) l : forall k,
  (forall i x, i < k + length l -> f i x = g i x) -> mapi_from k f l = mapi_from k g l.
Proof.
  induction l as [|x l IH]; intros k H; simpl in *; [reflexivity|]. rewrite H by lia. f_equal.
  apply IH. intros i y Hi. apply H. lia.
Qed.
Lemma mapi_nth {A B} (f : nat -> A -> B) l : forall k p,
  nth_error (mapi_from k f l) p = option_map (f (k + p)) (nth_error l p).
Proof.
  induction l as [|x l IH]; intros k [|p]; simpl; try reflexivity.
  - now rewrite Nat.add_0_r.
  - now rewrite IH, Nat.add_succ_r.
Qed.
Lemma mapi_firstn {A B} (f : nat -> A -> B) l : forall k n,
  firstn n (mapi_from k f l) = mapi_from k f (firstn n l).
Proof. induction l; intros k [|n]; simpl; congruence. Qed.
Lemma nth_firstn {A} (l : list A) : forall n s, s < n -> nth_error (firstn n l) s = nth_error l s.
Proof. induction l; intros [|n] [|s] H; simpl; try lia; auto. apply IHl. lia. Qed.
