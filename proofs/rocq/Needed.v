(* Needed.v -- what Markov.v assumes is needed: small decoders over the integers on which T2, T10
   and T11 fail once a hypothesis is dropped, and value residual, an architecture that breaks T1 and
   T2, with its cure.  Rests on nothing. *)
From Coq Require Import List Lia ZArith.
Import ListNotations.
From Minikv Require Import Markov.

(** * T2, T10 and T11: their hypotheses cannot be dropped
   A decoder over the integers: a token is its own embedding, K/V is the row, each of the two
   layers adds up what it sees. *)
Open Scope Z_scope.
Definition sum_layer : @layer Z Z := {| kv _ h := h; g _ _ ks := fold_right Z.add 0 ks |}.
Definition sum_model := [sum_layer; sum_layer].
Definition id_emb (_ : nat) (t : Z) := t.

(* T2: the donor's row of the LAST position alone, patched in, does not give the donor's output. *)
Definition patch_last (donor : list Z) (l : nat) (hs : list Z) :=
  if Nat.eqb l 1 then removelast hs ++ [last donor 0] else hs.
Example last_row_is_not_enough :
  let donor := [1; 4] in let recipient := [3; 4] in
  run_hook (patch_last (stream id_emb sum_model 1 donor)) 0 sum_model recipient = [3; 8] /\
  run_hook (patch 1 (stream id_emb sum_model 1 donor)) 0 sum_model recipient = [1; 6] /\
  outputs id_emb (fun h => h) sum_model donor = [1; 6].
Proof. now vm_compute. Qed.

(* T11: two layers with a window of 2 have a reach of 2, and row 0 does change the output at 2. *)
Definition window_layer : @layer Z Z :=
  {| kv _ h := h; g _ _ ks := fold_right Z.add 0 (skipn (length ks - 2) ks) |}.
Example reach_is_attained :
  reach [2%nat; 2%nat] = 2%nat /\
  run [window_layer; window_layer] [1; 0; 0; 0] = [1; 2; 1; 0] /\
  run [window_layer; window_layer] [0; 0; 0; 0] = [0; 0; 0; 0].
Proof. now vm_compute. Qed.

(* T10: below layer 0 no function of token and position gives the K/V. *)
Theorem deep_kv_needs_prefix : ~ exists f : nat -> Z -> Z, forall toks p,
  nth_error (kvs sum_layer (stream id_emb sum_model 1 toks)) p
  = option_map (f p) (nth_error toks p).
Proof.
  intros [f H]. pose proof (H [1; 4] 1%nat) as A. pose proof (H [3; 4] 1%nat) as B.
  vm_compute in A, B. congruence.
Qed.
Close Scope Z_scope.

(** * Counter-example: value residual breaks T1 and T2
   The K/V entry of a layer also reads the stream before layer 0 of its position. *)
Section ValueResidual.
Context {V KV : Type}.
Record vr_layer := { vkv : nat -> V -> V -> KV; vg : nat -> V -> list KV -> V }.
Definition vr_fwd (L : vr_layer) (h0s hs : list V) : list V :=
  mapi (fun i h => vg L i h
          (firstn (S i) (mapi (fun j x => vkv L j (fst x) (snd x)) (combine hs h0s)))) hs.
Definition vr_run (ls : list vr_layer) (h0s hs : list V) : list V :=
  fold_left (fun x L => vr_fwd L h0s x) ls hs.

(* The cure: with the stream of pairs (h, h0) it is a decoder of the kind above, so all of
   the theorems hold. *)
Definition pair_layer (L : vr_layer) : @layer (V * V) KV :=
  {| kv j x := vkv L j (fst x) (snd x); g i x ks := (vg L i (fst x) ks, snd x) |}.

Lemma combine_mapi {A B} (f : nat -> A -> B) : forall (l : list A) (m : list A) k,
  combine (mapi_from k f l) m = mapi_from k (fun i x => (f i (fst x), snd x)) (combine l m).
Proof. induction l; intros [|b m] k; simpl; congruence. Qed.

Theorem vr_is_paired ls h0s : forall hs,
  combine (vr_run ls h0s hs) h0s = run (map pair_layer ls) (combine hs h0s).
Proof.
  induction ls as [|L ls IH]; intros hs; simpl; [reflexivity|].
  unfold vr_run, run in *. rewrite IH. f_equal. exact (combine_mapi _ hs h0s 0).
Qed.
End ValueResidual.

(* A concrete one over Z: layer 0 keeps h mod 2; layer 1 adds up the layer-0 residuals. *)
Open Scope Z_scope.
Definition vr_model : list (@vr_layer Z Z) :=
  [ {| vkv _ h _ := h; vg _ h _ := h + (h mod 2 - h) |};
    {| vkv _ _ h0 := h0; vg _ h ks := h + fold_right Z.add 0 ks |} ].
Definition vr_stream (l : nat) (toks : list Z) := vr_run (firstn l vr_model) toks toks.
Definition vr_out (toks : list Z) := vr_run vr_model toks toks.

Example vr_equal_streams : vr_stream 1 [1; 4] = [1; 0] /\ vr_stream 1 [3; 4] = [1; 0].
Proof. now vm_compute. Qed.
Example vr_different_outputs : vr_out [1; 4] = [2; 5] /\ vr_out [3; 4] = [4; 7].
Proof. now vm_compute. Qed.

(* So no function whatever of the layer-1 stream gives the outputs ... *)
Theorem vr_not_markov : ~ exists F, forall toks, vr_out toks = F (vr_stream 1 toks).
Proof.
  intros [F H]. pose proof (H [1; 4]) as A. pose proof (H [3; 4]) as B.
  vm_compute in A, B. congruence.
Qed.
(* ... nor can the evicted layer-1 K/V be recomputed from the layer-1 residuals. *)
Definition vr_kvs1 (toks : list Z) : list Z :=
  match vr_model with
  | [_; L1] => mapi (fun j x => vkv L1 j (fst x) (snd x)) (combine (vr_stream 1 toks) toks)
  | _ => []
  end.
Theorem vr_no_recompute : ~ exists R, forall toks, vr_kvs1 toks = R (vr_stream 1 toks).
Proof.
  intros [R H]. pose proof (H [1; 4]) as A. pose proof (H [3; 4]) as B.
  vm_compute in A, B. congruence.
Qed.
Close Scope Z_scope.

Print Assumptions reach_is_attained.
Print Assumptions last_row_is_not_enough.
Print Assumptions deep_kv_needs_prefix.
Print Assumptions vr_is_paired.
Print Assumptions vr_equal_streams.
Print Assumptions vr_different_outputs.
Print Assumptions vr_not_markov.
Print Assumptions vr_no_recompute.
