(* Spans.v -- A5 (span), for an arbitrary causal decoder: evicting is not forgetting.  What is left
   after a span was evicted is the cache of a text that never had it at layer 0, and in general not
   above.  Rests on nothing. *)
From Coq Require Import List ZArith.
From Minikv Require Import Markov Needed.
Import ListNotations.

(* A text with the positions of its tokens, so that a span can be cut out and the rest stay. *)
Section Spans.
Context {Tok V KV : Type}.
Variable emb : nat -> Tok -> V.
Definition placed : Type := nat * Tok.
Definition embed_placed (text : list placed) : list (nat * V) :=
  map (fun x => (fst x, emb (fst x) (snd x))) text.
Definition kvs_placed (L : @layer V KV) (hs : list (nat * V)) : list KV :=
  map (fun x => kv L (fst x) (snd x)) hs.
Definition fwd_placed (L : @layer V KV) (hs : list (nat * V)) : list (nat * V) :=
  mapi (fun i x => (fst x, g L (fst x) (snd x) (firstn (S i) (kvs_placed L hs)))) hs.
Fixpoint caches_placed (ls : list (@layer V KV)) (hs : list (nat * V)) : list (list KV) :=
  match ls with [] => [] | L :: ls => kvs_placed L hs :: caches_placed ls (fwd_placed L hs) end.

(* The rows that stay. *)
Fixpoint keep_rows {X} (stay : placed -> bool) (text : list placed) (rows : list X) : list X :=
  match text, rows with
  | x :: text, r :: rows =>
      if stay x then r :: keep_rows stay text rows else keep_rows stay text rows
  | _, _ => []
  end.

Lemma keep_map {X} stay (f : placed -> X) text :
  keep_rows stay text (map f text) = map f (filter stay text).
Proof.
  induction text as [|x text IH]; simpl; [easy|]. destruct (stay x); simpl; now rewrite IH.
Qed.

(** * With the positions 0, 1, 2, ... this is Markov.v's decoder *)
Lemma placed_mapi {A B} (f : nat -> A -> B) xs : forall k,
  map (fun x => f (fst x) (snd x)) (mapi_from k (fun p x => (p, x)) xs) = mapi_from k f xs.
Proof. induction xs; intros k; simpl; [easy|]. now rewrite IHxs. Qed.
Lemma fwd_placed_is_fwd L hs :
  fwd_placed L (mapi (fun p h => (p, h)) hs) = mapi (fun p h => (p, h)) (fwd L hs).
Proof.
  unfold fwd_placed, fwd, rows, kvs_placed. rewrite placed_mapi. fold (kvs L hs).
  generalize (kvs L hs) as ks. intros ks. generalize 0.
  induction hs as [|h hs IH]; intros k; simpl; [easy|]. now rewrite IH.
Qed.
Theorem caches_placed_is_caches ls : forall hs,
  caches_placed ls (mapi (fun p h => (p, h)) hs) = caches ls hs.
Proof.
  induction ls as [|L ls IH]; intros hs; simpl; [easy|]. rewrite fwd_placed_is_fwd, IH. f_equal.
  unfold kvs_placed. apply (placed_mapi (kv L)).
Qed.

(** * A5: at layer 0 what stays is what a text without the span has there *)
Theorem eviction_forgets_at_layer_0 L stay text :
  keep_rows stay text (kvs_placed L (embed_placed text))
  = kvs_placed L (embed_placed (filter stay text)).
Proof. unfold kvs_placed, embed_placed. rewrite !map_map. apply keep_map. Qed.
End Spans.

(** * A5: above it is not: the row behind the span has seen it *)
Open Scope Z_scope.
Definition no_span (x : nat * Z) : bool := negb (Nat.eqb (fst x) 1).
Example eviction_does_not_forget :
  let text := [(0%nat, 1); (1%nat, 4); (2%nat, 2)] in
  let all := caches_placed sum_model (embed_placed id_emb text) in
  map (keep_rows no_span text) all = [[1; 2]; [1; 7]] /\
  caches_placed sum_model (embed_placed id_emb (filter no_span text)) = [[1; 2]; [1; 3]].
Proof. now vm_compute. Qed.

(* So no function of the text that stays gives what stays at layer 1: the span is still in it. *)
Theorem eviction_keeps_the_span : ~ exists f : list (nat * Z) -> list Z,
  forall text : list (nat * Z),
  option_map (keep_rows no_span text)
    (nth_error (caches_placed sum_model (embed_placed id_emb text)) 1)
  = Some (f (filter no_span text)).
Proof.
  intros [f H]. pose proof (H [(0%nat, 1); (1%nat, 4); (2%nat, 2)]) as A.
  pose proof (H [(0%nat, 1); (1%nat, 5); (2%nat, 2)]) as B. vm_compute in A, B. congruence.
Qed.
Close Scope Z_scope.

Print Assumptions caches_placed_is_caches.
Print Assumptions eviction_forgets_at_layer_0.
Print Assumptions eviction_does_not_forget.
Print Assumptions eviction_keeps_the_span.
