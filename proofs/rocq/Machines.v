(* Machines.v -- no two machines that add the same terms, in whatever order, differ in a bit of the
   decoder of Decoder.v: T3, T6 and T7 for it in one theorem, for all five families, with no
   hypothesis left on grids, bounds or rounding.  Assumed are orderly machines and a model that
   could be `loaded`; `build_loaded` has that follow from finite float32 tensors. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Total GridOrder Narrow Rows
  Linear Attend Markov.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.
#[local] Opaque one.

Section Two.
Variables M N : D.machine.
Hypotheses (OM : orderly M) (ON : orderly N).

(** * A block *)
Record ready (b : D.block) : Prop := {
  ready_q : prepared (D.q_proj b); ready_k : prepared (D.k_proj b);
  ready_v : prepared (D.v_proj b); ready_o : prepared (D.o_proj b);
  ready_gate : prepared (D.gate_proj b); ready_up : prepared (D.up_proj b);
  ready_down : prepared (D.down_proj b) }.

Lemma project_same ws bias x : prepared ws -> D.project M ws bias x = D.project N ws bias x.
Proof. intros P. unfold D.project. now rewrite (linear_same M N OM ON). Qed.
Lemma norm_same c w x : good c -> D.rms_norm M c w x = D.rms_norm N c w x.
Proof. intros G. apply (rms_norm_same M N OM ON); apply G. Qed.
Lemma map2_ext {A B C} (f g : A -> B -> C) xs : forall ys, (forall x y, f x y = g x y) ->
  D.map2 f xs ys = D.map2 g xs ys.
Proof. induction xs as [|x xs IH]; intros [|y ys] H; simpl; auto. rewrite H. f_equal. auto. Qed.

Theorem kv_same c b p h : good c -> ready b ->
  D.kv_from_residual M c b p h = D.kv_from_residual N c b p h.
Proof.
  intros G R. unfold D.kv_from_residual. cbv zeta. rewrite (norm_same c) by exact G.
  rewrite (project_same (D.k_proj b)), (project_same (D.v_proj b)) by apply R.
  apply map2_ext. intros k v. now rewrite (norm_same c (D.k_norm b)).
Qed.
Theorem activations_same c b p h seen : good c -> ready b ->
  D.block_activations M c b p h seen = D.block_activations N c b p h seen.
Proof.
  intros G R. unfold D.block_activations. cbv zeta.
  rewrite (norm_same c (Some (D.input_layernorm b))) by exact G.
  rewrite (project_same (D.q_proj b)) by apply R.
  set (heads := D.pieces (D.groups c * D.shared c) _ _).
  assert (Q : map (fun q => D.rope (D.frequencies b) p (D.rms_norm M c (D.q_norm b) q)) heads
            = map (fun q => D.rope (D.frequencies b) p (D.rms_norm N c (D.q_norm b) q)) heads).
  { apply map_ext. intros q. now rewrite (norm_same c). }
  rewrite Q. set (rotated := map _ heads).
  set (one := fun M j qs => concat (map (fun q => D.attend M c q
    (map fst (map (fun e => nth j e ([], [])) (D.visible (D.window b) seen)))
    (map snd (map (fun e => nth j e ([], [])) (D.visible (D.window b) seen)))) qs)).
  assert (Z : D.map2 (one M) (seq 0 (D.groups c)) (D.pieces (D.groups c) (D.shared c) rotated)
            = D.map2 (one N) (seq 0 (D.groups c)) (D.pieces (D.groups c) (D.shared c) rotated)).
  { apply map2_ext. intros j qs. unfold one. f_equal. apply map_ext. intros q.
    now apply (attend_same M N OM ON). }
  unfold one in Z. rewrite Z. rewrite (linear_same M N OM ON (D.o_proj b)) by apply R.
  rewrite (norm_same c (D.post_attention_layernorm b)) by exact G.
  rewrite (norm_same c (Some (D.pre_mlp_layernorm b))) by exact G.
  rewrite (linear_same M N OM ON (D.gate_proj b)) by apply R.
  rewrite (linear_same M N OM ON (D.up_proj b)) by apply R.
  rewrite (linear_same M N OM ON (D.down_proj b)) by apply R.
  now rewrite (norm_same c (D.post_feedforward_layernorm b)).
Qed.
Theorem rest_same c b p h seen : good c -> ready b ->
  D.block_rest M c b p h seen = D.block_rest N c b p h seen.
Proof. intros G R. unfold D.block_rest. now rewrite activations_same. Qed.
End Two.

(** * The whole decoder *)
Definition same_layer {V KV} (L L' : @layer V KV) : Prop :=
  (forall p h, kv L p h = kv L' p h) /\ forall p h ks, g L p h ks = g L' p h ks.
Lemma run_ext {V KV} (ls ls' : list (@layer V KV)) : Forall2 same_layer ls ls' ->
  forall hs, run ls hs = run ls' hs.
Proof.
  unfold run. induction 1 as [|L L' ls ls' [HK HG] _ IH]; intros hs; simpl; [reflexivity|].
  rewrite IH.
  f_equal. unfold fwd, rows, kvs. rewrite (mapi_ext (kv L) (kv L')) by (intros; apply HK).
  apply mapi_ext. intros. apply HG.
Qed.

(* A model whose weights could be loaded. *)
Record loaded (m : D.model) : Prop := {
  loaded_conf : good (D.conf m); loaded_blocks : Forall ready (D.blocks m);
  loaded_head : prepared (D.lm_head m) }.
Definition block_loadable (b : D.block) : Prop :=
  loadable (D.q_proj b) /\ loadable (D.k_proj b) /\ loadable (D.v_proj b) /\
  loadable (D.o_proj b) /\ loadable (D.gate_proj b) /\ loadable (D.up_proj b) /\
  loadable (D.down_proj b).
Theorem build_loaded c e bs n head : good c -> loadable head -> Forall block_loadable bs ->
  loaded (D.build c e bs n head).
Proof.
  intros G E Bs. split; [exact G | | now apply weight_prepared].
  apply Forall_map. eapply Forall_impl; [|exact Bs].
  intros b (H1 & H2 & H3 & H4 & H5 & H6 & H7). split; now apply weight_prepared.
Qed.

(* Each row at each layer may be computed by a machine of its own: another order, blocking, number
   of threads, padding, for another batch, chunk, day or make of computer. *)
Section Mixed.
Variables (MK MG : nat -> nat -> list float -> D.machine) (MU : list float -> D.machine).
Hypotheses (OK : forall l p h, orderly (MK l p h)) (OG : forall l p h, orderly (MG l p h))
  (OU : forall h, orderly (MU h)).
Variable m : D.model.
Hypothesis Lm : loaded m.

Definition mixed_layers : list layer := mapi_from 0 (fun l b =>
  {| kv p h := D.kv_from_residual (MK l p h) (D.conf m) b p h;
     g p h seen := D.block_rest (MG l p h) (D.conf m) b p h seen |}) (D.blocks m).
Definition mixed_unembed (h : list float) := D.unembed (MU h) m h.

Lemma mixed_same_layers : Forall2 same_layer mixed_layers (D.layers D.loops m).
Proof.
  destruct Lm as [G R _]. unfold mixed_layers, D.layers. generalize 0%nat.
  induction R as [|b bs Rb _ IH]; intros l; simpl; constructor; [|apply IH].
  split; intros; simpl; [apply kv_same | apply rest_same]; auto using loops_orderly.
Qed.
Lemma mixed_same_unembed h : mixed_unembed h = D.unembed D.loops m h.
Proof.
  destruct Lm as [G _ P]. unfold mixed_unembed, D.unembed.
  rewrite (norm_same (MU h) D.loops), (linear_same (MU h) D.loops); auto using loops_orderly.
Qed.

(* T3, T6 and T7 in one, for the decoder itself: decoding with a cache, in any chunks, by any
   machines, gives bit for bit the logits of the loops in one pass. *)
Theorem any_machines_any_chunks chunks :
  fst (decode (D.embed m) mixed_unembed mixed_layers chunks) = D.logits D.loops m (concat chunks).
Proof.
  rewrite decode_is_forward. simpl. unfold D.logits, outputs.
  rewrite (run_ext _ _ mixed_same_layers). apply map_ext. exact mixed_same_unembed.
Qed.
End Mixed.

Theorem logits_same M m tokens : orderly M -> loaded m ->
  D.logits M m tokens = D.logits D.loops m tokens.
Proof.
  intros O L. pose proof (any_machines_any_chunks (fun _ _ _ => M) (fun _ _ _ => M) (fun _ => M)
    (fun _ _ _ => O) (fun _ _ _ => O) (fun _ => O) m L [tokens]) as H.
  rewrite decode_is_forward in H. cbn [concat fst full] in H. rewrite app_nil_r in H. rewrite <- H.
  unfold D.logits, full, fst, mixed_layers, D.layers, mixed_unembed. f_equal.
  generalize 0%nat. induction (D.blocks m) as [|b bs IH]; intros l; simpl; [reflexivity|].
  now rewrite <- IH.
Qed.

Print Assumptions kv_same.
Print Assumptions activations_same.
Print Assumptions rest_same.
Print Assumptions build_loaded.
Print Assumptions any_machines_any_chunks.
Print Assumptions logits_same.
