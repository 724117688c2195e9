(* NoCheck.v -- in a block of a calm model no check fires: K/V and activations are finite float32
   numbers, and the stream grows by at most 4097 * 2^104.  Finite.v goes through all blocks. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Total GridOrder Narrow Rows
  Linear Attend Settle Hidden Markov Machines Calm NoRaise Range Norm Settled Gate Checks Softmax
  Turn.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.
#[local] Opaque one.

(** * What the computation says of real numbers *)
Lemma upto_val r e xs : fin r -> V r = pow2 e -> upto r xs = true ->
  Forall (finite_at_most (pow2 e)) xs.
Proof.
  intros Fr Vr. apply forallb_Forall. intros x H. assert (Fx : fin x) by exact (leb_fin _ _ H Fr).
  split; [exact Fx|]. destruct (abs_val x) as [Va Fa]. rewrite leb_val, Va, Vr in H by auto.
  now destruct (Rle_bool_spec (Rabs (V x)) (pow2 e)).
Qed.
Ltac upto_of H e := refine (upto_val _ e _ _ _ H); [finite | value; simpl; lra].
Lemma few_size xs : few xs = true -> size 16 xs.
Proof.
  intros H. assert (E : V widest = pow2 16) by (value; simpl; lra). unfold size. rewrite <- E.
  apply no_longer_val; [unfold widest; finite | rewrite E; apply up; lia | exact H].
Qed.
Lemma count_upto n : (D.of_nat n <=? widest)%float = true -> INR n <= pow2 16.
Proof.
  intros H. assert (E : V widest = pow2 16) by (value; simpl; lra). rewrite <- E.
  rewrite <- (repeat_length tt n) at 1.
  apply no_longer_val; [unfold widest; finite | rewrite E; apply up; lia |].
  unfold D.no_longer. now rewrite repeat_length.
Qed.
Lemma between_val x : between x = true -> fin x /\ pow2 (-100) <= V x <= pow2 100.
Proof.
  intros H. apply andb_true_iff in H as [H1 H2].
  assert (Fx : fin x) by (apply (leb_fin _ _ H2); finite).
  assert (Vl : V 0x1p-100 = pow2 (-100)) by (value; simpl; lra).
  assert (Vh : V 0x1p100 = pow2 100) by (value; simpl; lra).
  destruct (abs_val x) as [Va Fa]. rewrite leb_val, Vl in H1 by (auto; finite).
  rewrite leb_val, Va, Vh in H2 by (auto; finite). split; [exact Fx|].
  destruct (Rle_bool_spec (pow2 (-100)) (V x)), (Rle_bool_spec (Rabs (V x)) (pow2 100)); try easy.
  split; [lra|]. eapply Rle_trans; [apply Rle_abs | lra].
Qed.

Lemma calm_conf_of c : good c -> calm_config c = true ->
  calm_conf c /\ (fin (D.rms_norm_eps c) /\ pow2 (-100) <= V (D.rms_norm_eps c) <= pow2 100) /\
  INR (D.groups c * (D.shared c * D.head_dim c)) <= pow2 16 /\ INR (D.head_dim c) <= pow2 16.
Proof.
  intros G H. unfold calm_config in H. rewrite !andb_true_iff in H.
  destruct H as (((((((He & Hs) & Hc) & Hz) & Hd) & Ht) & Hu) & _).
  assert (E : V D.longest = pow2 20) by (value; simpl; lra).
  assert (F20 : fin D.longest) by (unfold D.longest; finite).
  split; [split; auto; [now apply between_val|]|split; [now apply between_val|]].
  - pose proof G as (_ & _ & _ & Fc & _). rewrite leb_val, E in Hc by auto.
    now destruct (Rle_bool_spec (V (D.context c)) (pow2 20)).
  - split; now apply count_upto.
Qed.

(** * Pieces *)
Lemma pieces_Forall {A} (P : A -> Prop) n k : forall xs, Forall P xs ->
  Forall (fun x => Forall P x /\ (length x <= k)%nat) (D.pieces n k xs).
Proof.
  induction n as [|n IH]; intros xs H; cbn [D.pieces]; constructor.
  - split; [now apply Forall_firstn | apply firstn_le_length].
  - apply IH. now apply Forall_skipn.
Qed.
Lemma concat_length {A} k (xss : list (list A)) : Forall (fun xs => length xs <= k)%nat xss ->
  (length (concat xss) <= length xss * k)%nat.
Proof. induction 1; simpl; [lia|]. rewrite app_length. lia. Qed.
Lemma concat_Forall {A} (P : A -> Prop) xss : Forall (Forall P) xss -> Forall P (concat xss).
Proof. induction 1; simpl; [constructor|]. apply Forall_app. now split. Qed.
Lemma size_le n (xs : list float) k : (length xs <= k)%nat -> INR k <= pow2 n -> size n xs.
Proof. intros L H. unfold size. eapply Rle_trans; [apply le_INR, L | exact H]. Qed.

(** * A block *)
Section Block.
Variable M : D.machine.
Hypothesis O : orderly M.
Variable c : D.config.
Hypotheses (Gc : good c) (Cc : calm_config c = true).
Variable b : D.block.
Hypotheses (Rb : ready b) (Cb : calm_block b = true).

Record calm_parts : Prop := {
  part_window : D.window b <> Some 0%nat;
  part_frequencies : Forall (finite_at_most 1) (D.frequencies b);
  part_in : Forall (finite_at_most (pow2 12)) (D.input_layernorm b);
  part_mlp : Forall (finite_at_most (pow2 12)) (D.pre_mlp_layernorm b);
  part_norms : forall w, D.post_attention_layernorm b = Some w \/
    D.post_feedforward_layernorm b = Some w \/ D.q_norm b = Some w \/ D.k_norm b = Some w ->
    Forall (finite_at_most (pow2 12)) w;
  part_biases : forall w, D.q_bias b = Some w \/ D.k_bias b = Some w \/ D.v_bias b = Some w ->
    Forall (finite_at_most (pow2 40)) w;
  part_matrices : forall m, In m [D.q_proj b; D.k_proj b; D.v_proj b; D.o_proj b; D.gate_proj b;
    D.up_proj b; D.down_proj b] ->
    INR (length m) <= pow2 16 /\ Forall (Forall (finite_at_most (pow2 6))) m /\ prepared m }.

Lemma parts : calm_parts.
Proof.
  pose proof Cb as H. unfold calm_block in H. rewrite !andb_true_iff in H.
  destruct H as (((((((((((((((((Hw & Hf) & Hi) & Hm) & Ha) & Hff) & Hq) & Hk) & Bq) & Bk) & Bv)
    & Mq) & Mk) & Mv) & Mo) & Mg) & Mu) & Md).
  split.
  - intros E. now rewrite E in Hw.
  - change 1 with (pow2 0). upto_of Hf 0%Z.
  - upto_of Hi 12%Z.
  - upto_of Hm 12%Z.
  - intros w [E | [E | [E | E]]];
      [rewrite E in Ha | rewrite E in Hff | rewrite E in Hq | rewrite E in Hk]; cbn [upto_if] in *.
    + upto_of Ha 12%Z.
    + upto_of Hff 12%Z.
    + upto_of Hq 12%Z.
    + upto_of Hk 12%Z.
  - intros w [E | [E | E]]; [rewrite E in Bq | rewrite E in Bk | rewrite E in Bv];
      cbn [upto_if] in *.
    + upto_of Bq 40%Z.
    + upto_of Bk 40%Z.
    + upto_of Bv 40%Z.
  - assert (Mat : forall m, calm_matrix m = true -> prepared m ->
      INR (length m) <= pow2 16 /\ Forall (Forall (finite_at_most (pow2 6))) m /\ prepared m).
    { intros m H P. apply andb_true_iff in H as [H1 H2]. split; [|split; [|exact P]].
      - apply count_upto. exact H1.
      - revert H2. apply forallb_Forall. intros w Hw'. upto_of Hw' 6%Z. }
    intros m I. destruct Rb as [R1 R2 R3 R4 R5 R6 R7].
    repeat (destruct I as [<- | I]; [now apply Mat|]). destruct I.
Qed.

Let P := parts.
Let conf := proj1 (calm_conf_of c Gc Cc).
Let eps := proj1 (proj2 (calm_conf_of c Gc Cc)).
Let heads := proj1 (proj2 (proj2 (calm_conf_of c Gc Cc))).
Let width := proj2 (proj2 (proj2 (calm_conf_of c Gc Cc))).

(* A row of at most 2^16 finite float32 numbers of at most r. *)
Definition row_upto (r : R) (x : list float) : Prop := size 16 x /\ Forall (at_most r) x.
Lemma row_le r s x : r <= s -> row_upto r x -> row_upto s x.
Proof. intros L [S B]. split; [exact S | now apply (at_most_row r)]. Qed.

Lemma norm_upto w x : Forall (finite_at_most (pow2 12)) w -> size 16 x -> Forall single x ->
  row_upto (pow2 22) (D.rms_norm M c (Some w) x).
Proof.
  intros W S X. split.
  - eapply Rle_trans; [|exact S]. apply le_INR. unfold D.rms_norm. cbv zeta. apply map2_length.
  - destruct eps as [Fe Be]. apply (rms_norm_at_most M c w x 16 12); auto; try lia.
    change ((16 + 4) / 2)%Z with 10%Z. lia.
Qed.
Lemma norm_if w x e : (22 <= e)%Z -> (forall w',
  w = Some w' -> Forall (finite_at_most (pow2 12)) w') ->
  row_upto (pow2 e) x -> row_upto (pow2 e) (D.rms_norm M c w x).
Proof.
  intros E W X. destruct w as [w|]; [|exact X]. apply (row_le (pow2 22)); [now apply up|].
  apply norm_upto; [now apply W | apply X | exact (single_row _ _ (proj2 X))].
Qed.
Lemma linear_upto m x e : In m [D.q_proj b; D.k_proj b; D.v_proj b; D.o_proj b; D.gate_proj b;
    D.up_proj b; D.down_proj b] -> (0 <= e <= 103)%Z -> row_upto (pow2 e) x ->
  row_upto (pow2 (e + 24)) (D.linear M m x).
Proof.
  intros I E [S X]. destruct (part_matrices P m I) as (L & B & Pr).
  destruct (linear_at_most M m x 16 6 e O Pr B) as [Ll Lb]; auto; try lia. split.
  - unfold size. now rewrite Ll.
  - now replace (e + 24)%Z with (16 + e + 6 + 2)%Z by lia.
Qed.
Lemma project_upto m bias x : In m [D.q_proj b; D.k_proj b; D.v_proj b; D.o_proj b; D.gate_proj b;
    D.up_proj b; D.down_proj b] -> (forall w,
      bias = Some w -> Forall (finite_at_most (pow2 40)) w) ->
  row_upto (pow2 22) x -> row_upto (pow2 47) (D.project M m bias x).
Proof.
  intros I Bi X. pose proof (linear_upto m x 22 I ltac:(lia) X) as L. unfold D.project.
  destruct bias as [w|]; [|apply (row_le (pow2 (22 + 24))); [apply up; lia | exact L]]. split.
  - eapply Rle_trans; [exact (le_INR _ _ (proj1 (map2_length _ _ _))) | apply L].
  - apply (add_rows_at_most (pow2 46) (pow2 40)); [apply bound_pow; lia | simpl;
      lra | | now apply Bi].
    apply finite_of, L.
Qed.

(* A piece of such a row, for one head. *)
Definition head_upto (r : R) (x : list float) : Prop :=
  Forall (at_most r) x /\ (length x <= D.head_dim c)%nat.
Lemma head_row r x : head_upto r x -> row_upto r x.
Proof. intros [B L]. split; [|exact B].
apply (size_le 16 x (D.head_dim c)); [exact L | exact width]. Qed.
Lemma heads_upto n r x : Forall (at_most r) x -> Forall (head_upto r) (D.pieces n (D.head_dim c) x).
Proof. apply pieces_Forall. Qed.
Lemma turned w p x : INR p <= pow2 20 ->
  (forall w', w = Some w' -> Forall (finite_at_most (pow2 12)) w') -> head_upto (pow2 47) x ->
  head_upto (pow2 78) (D.rope (D.frequencies b) p (D.rms_norm M c w x)).
Proof.
  intros Hp W X. destruct (norm_if w x 47 ltac:(lia) W (head_row _ _ X)) as [_ B].
  destruct (rope_at_most (D.frequencies b) p (D.rms_norm M c w x) 47 Hp (part_frequencies P))
    as [L R]; [lia | exact B |]. split; [exact R|]. etransitivity; [exact L|].
  destruct X as [_ X]. unfold D.rms_norm. cbv zeta. destruct w; [|exact X].
  etransitivity; [exact (proj1 (map2_length _ _ _)) | exact X].
Qed.

Definition entry_ok (e : D.kv_entry) : Prop := Forall (fun kv => D.settled (fst kv) = true /\
  D.settled (snd kv) = true /\ Forall single (fst kv) /\ Forall (at_most (pow2 47)) (snd kv)) e.
Theorem kv_ok p h : INR p <= pow2 20 -> size 16 h -> Forall single h ->
  entry_ok (D.kv_from_residual M c b p h).
Proof.
  intros Hp S X. unfold D.kv_from_residual. cbv zeta.
  pose proof (norm_upto _ h (part_in P) S X) as N. set (x := D.rms_norm M c _ h) in *.
  pose proof (project_upto (D.k_proj b) (D.k_bias b) x ltac:(simpl; tauto)
    ltac:(intros w E; apply (part_biases P w); tauto) N) as K.
  pose proof (project_upto (D.v_proj b) (D.v_bias b) x ltac:(simpl; tauto)
    ltac:(intros w E; apply (part_biases P w); tauto) N) as W.
  pose proof (heads_upto (D.groups c) _ _ (proj2 K)) as Hk.
  pose proof (heads_upto (D.groups c) _ _ (proj2 W)) as Hv.
  revert Hk Hv. apply map2_Forall. intros k v Kk Kv. cbn [fst snd].
  pose proof (turned (D.k_norm b) p k Hp ltac:(intros w E; apply (part_norms P w);
    tauto) Kk) as [T _].
  destruct Kv as [Bv _]. split; [|split; [|split]].
  - apply settle_settled. exact (single_row _ _ T).
  - apply settle_settled. exact (single_row _ _ Bv).
  - apply (single_row (pow2 78)), settle_at_most; [lia | exact T].
  - apply settle_at_most; [lia | exact Bv].
Qed.

Definition rows_of (a : D.activations) : list (list float) :=
  [D.ln1_normalized a; D.attn_q a; D.attn_rot_q a; D.attn_z a; D.attn_out a; D.resid_mid a;
   D.ln2_normalized a; D.mlp_pre a; D.mlp_pre_linear a; D.mlp_post a; D.mlp_out a; D.resid_post a].
Lemma visible_ok seen : Forall entry_ok seen -> seen <> [] ->
  Forall entry_ok (D.visible (D.window b) seen) /\ D.visible (D.window b) seen <> [] /\
  (length (D.visible (D.window b) seen) <= length seen)%nat.
Proof.
  intros S N. unfold D.visible. pose proof (part_window P) as W.
  destruct (D.window b) as [w|]; [|auto]. split; [now apply Forall_skipn|].
  split; [|rewrite skipn_length; lia]. intros E. apply (f_equal (@length _)) in E.
  rewrite skipn_length in E. cbn [length] in E. destruct w as [|w]; [easy|].
  destruct seen as [|e seen]; [easy|]. cbn [length] in E. lia.
Qed.
Lemma unit_bound k : (0 <= k < 2^24)%Z -> bound32 (IZR k * pow2 104).
Proof. intros K. apply bound_count; lia. Qed.

Theorem block_ok k p h seen : (0 <= k < 2^23)%Z -> INR p <= pow2 20 ->
  row_upto (IZR k * pow2 104) h -> Forall entry_ok seen -> seen <> [] ->
  INR (length seen) <= V (D.context c) ->
  let a := D.block_activations M c b p h seen in
  Forall (Forall single) (rows_of a) /\ row_upto (IZR (k + 4097) * pow2 104) (D.resid_post a).
Proof.
  intros K Hp [Sh Bh] Sn Ne Ln. pose proof (bpow_gt_0 radix2 104) as P104.
  assert (K0 : 0 <= IZR k) by (apply IZR_le; lia).
  destruct (visible_ok seen Sn Ne) as (Vs & Vn & Vl). unfold D.block_activations. cbv zeta.
  set (vis := D.visible (D.window b) seen) in *.
  pose proof (norm_upto _ h (part_in P) Sh (single_row _ _ Bh)) as N1.
  set (ln1 := D.rms_norm M c (Some (D.input_layernorm b)) h) in *.
  pose proof (project_upto (D.q_proj b) (D.q_bias b) ln1 ltac:(simpl; tauto)
    ltac:(intros w E; apply (part_biases P w); tauto) N1) as Q.
  set (q := D.project M _ _ ln1) in *.
  set (rot := map _ (D.pieces _ _ q)).
  assert (Rot : Forall (head_upto (pow2 78)) rot).
  { apply Forall_map. eapply Forall_impl; [|exact (heads_upto _ _ _ (proj2 Q))]. intros x X.
    apply turned; auto. intros w E. apply (part_norms P w). tauto. }
  set (one := fun j qs => concat (map (fun q => D.attend M c q
    (map fst (map (fun e => nth j e ([], [])) vis)) (map snd (map (fun e => nth j e ([],
      [])) vis))) qs)).
  assert (Entry : forall j e, In e vis -> D.settled (fst (nth j e ([], []))) = true /\
    D.settled (snd (nth j e ([], []))) = true /\ Forall single (fst (nth j e ([], []))) /\
    Forall (at_most (pow2 47)) (snd (nth j e ([], [])))).
  { intros j e I. pose proof (proj1 (Forall_forall _ _) Vs e I) as E.
    destruct (nth_in_or_default j e ([], [])) as [J | ->].
    - exact (proj1 (Forall_forall _ _) E _ J).
    - repeat split; constructor. }
  assert (At : forall j x, head_upto (pow2 78) x -> let z := D.attend M c x
      (map fst (map (fun e => nth j e ([], [])) vis)) (map snd (map (fun e => nth j e ([],
        [])) vis)) in
    length z = D.head_dim c /\ Forall (at_most (pow2 70)) z).
  { intros j x X. pose proof Gc as (_ & _ & Fpg & _ & n & Hn & Vpg & Vc).
    destruct (head_row _ _ X) as [Sx Bx].
    apply (attend_at_most M O c conf n Hn Fpg Vpg Vc x _ _) with (b := 47%Z).
    - eapply Rle_trans; [exact Sx | apply up; lia].
    - exact (single_row _ _ Bx).
    - rewrite !forallb_map. apply forallb_forall. intros e I. now apply Entry.
    - rewrite !forallb_map. apply forallb_forall. intros e I. now apply Entry.
    - destruct vis; easy.
    - rewrite !map_length. eapply Rle_trans; [apply le_INR, Vl | exact Ln].
    - lia.
    - apply Forall_map, Forall_map, Forall_forall. intros e I. now apply Entry. }
  set (z := concat (D.map2 one (seq 0 (D.groups c)) (D.pieces (D.groups c) (D.shared c) rot))).
  assert (Z : row_upto (pow2 70) z).
  { assert (Gr : Forall (fun x => (length x <= D.shared c * D.head_dim c)%nat /\
        Forall (at_most (pow2 70)) x) (D.map2 one (seq 0 (D.groups c))
        (D.pieces (D.groups c) (D.shared c) rot))).
    { apply (map2_Forall _ (fun _ => True) (fun xs => Forall (head_upto (pow2 78)) xs /\
        (length xs <= D.shared c)%nat)).
      - intros j xs _ [X L]. unfold one. split.
        + etransitivity; [apply (concat_length (D.head_dim c))|].
          * apply Forall_map. eapply Forall_impl; [|exact X]. intros x Hx.
            destruct (At j x Hx) as [-> _]. lia.
          * rewrite map_length. now apply Nat.mul_le_mono_r.
        + apply concat_Forall, Forall_map. eapply Forall_impl; [|exact X]. intros x Hx.
          now apply At.
      - apply Forall_forall. easy.
      - now apply pieces_Forall. }
    split.
    - apply (size_le 16 z (D.groups c * (D.shared c * D.head_dim c))); [|exact heads].
      etransitivity; [apply (concat_length (D.shared c * D.head_dim c))|].
      + eapply Forall_impl; [|exact Gr]. now intros x [].
      + apply Nat.mul_le_mono_r. etransitivity; [exact (proj1 (map2_length _ _ _))|].
        now rewrite seq_length.
    - apply concat_Forall. eapply Forall_impl; [|exact Gr]. now intros x []. }
  pose proof (norm_if (D.post_attention_layernorm b) (D.linear M (D.o_proj b) z) 94 ltac:(lia)
    ltac:(intros w E; apply (part_norms P w); tauto)
    (linear_upto (D.o_proj b) z 70 ltac:(simpl; tauto) ltac:(lia) Z)) as A.
  set (out := D.rms_norm M c (D.post_attention_layernorm b) _) in *.
  assert (Mid : row_upto (IZR (k + 1) * pow2 104) (D.add_rows h out)).
  { split; [eapply Rle_trans; [exact (le_INR _ _ (proj1 (map2_length _ _ _))) | exact Sh]|].
    apply (add_rows_at_most (IZR k * pow2 104) (pow2 94)); [apply unit_bound; lia | | |].
    - assert (pow2 94 <= pow2 104) by (apply up; lia). rewrite plus_IZR. lra.
    - now apply finite_of.
    - apply finite_of, A. }
  set (mid := D.add_rows h out) in *.
  pose proof (norm_upto _ mid (part_mlp P) (proj1 Mid) (single_row _ _ (proj2 Mid))) as N2.
  set (ln2 := D.rms_norm M c (Some (D.pre_mlp_layernorm b)) mid) in *.
  pose proof (linear_upto (D.gate_proj b) ln2 22 ltac:(simpl; tauto) ltac:(lia) N2) as Gt.
  pose proof (linear_upto (D.up_proj b) ln2 22 ltac:(simpl; tauto) ltac:(lia) N2) as Up.
  set (gate := D.linear M (D.gate_proj b) ln2) in *.
  set (rate := D.linear M (D.up_proj b) ln2) in *.
  assert (Po : row_upto (pow2 92) (D.map2 (D.gated c) gate rate)).
  { split; [eapply Rle_trans; [exact (le_INR _ _ (proj1 (map2_length _ _ _))) | apply Gt]|].
    apply (map2_Forall _ (at_most (pow2 46)) (at_most (pow2 46))); [|apply Gt | apply Up].
    intros x y. apply gated_at_most; [apply conf | lia]. }
  pose proof (norm_if (D.post_feedforward_layernorm b) _ 116 ltac:(lia)
    ltac:(intros w E; apply (part_norms P w); tauto)
    (linear_upto (D.down_proj b) _ 92 ltac:(simpl; tauto) ltac:(lia) Po)) as F.
  set (mlp := D.rms_norm M c (D.post_feedforward_layernorm b) _) in *.
  assert (End : row_upto (IZR (k + 4097) * pow2 104) (D.add_rows mid mlp)).
  { split; [eapply Rle_trans; [exact (le_INR _ _ (proj1 (map2_length _ _ _))) | apply Mid]|].
    apply (add_rows_at_most (IZR (k + 1) * pow2 104) (pow2 116)); [apply unit_bound; lia | | |].
    - change 116%Z with (12 + 104)%Z. rewrite (bpow_plus _ 12), !plus_IZR.
      simpl (bpow radix2 12). lra.
    - apply finite_of, Mid.
    - apply finite_of, F. }
  split; [|exact End]. unfold rows_of.
  cbn [D.ln1_normalized D.attn_q D.attn_rot_q D.attn_z D.attn_out D.resid_mid D.ln2_normalized
    D.mlp_pre D.mlp_pre_linear D.mlp_post D.mlp_out D.resid_post].
  repeat constructor; try (eapply single_row; match goal with H : row_upto _ ?x |- Forall _ ?x =>
    exact (proj2 H) end).
  apply concat_Forall. eapply Forall_impl; [|exact Rot]. intros x [B _]. exact (single_row _ _ B).
Qed.
End Block.

Print Assumptions kv_ok.
Print Assumptions block_ok.
