(* Padding.v -- keys that a mask hides weigh nothing: attention of a query, where hidden keys get
   the score -inf and stay in every sum, is attention over the keys that are seen; so it is for a
   block of queries.  It assumes of the table of exp that exp(-inf) = 0. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Total GridOrder Narrow Rows
  Linear Attend Hidden.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.
#[local] Opaque one.

Section Masked.
Variable M : D.machine.
Hypothesis O : orderly M.
Variable c : D.config.
Hypothesis G : good c.
Hypothesis Far : D.exp (D.exp_table c) neg_infinity = 0%float.

Definition attend_masked (q : list float) (it : list item) : list float :=
  let q := map (fun x => x * (1 / sqrt (D.query_pre_attn_scalar c)))%float q in
  if negb (forallb D.wide q && D.no_longer D.longest q) then D.raise else
  let q := map (D.to_grid (D.grid M D.bits29 q)) q in
  let scores := map (fun i => if hidden i then neg_infinity else D.dot M q (key i) + 0)%float it in
  let m := D.largest scores in
  let e := map (fun s => D.exp (D.exp_table c) (s - m)%float) scores in
  if negb (forallb D.in_unit e) then D.raise else
  let e := map (D.to_grid (D.pattern_grid c)) e in
  let denominator := D.sum M e in
  if negb (0 <? denominator)%float then D.raise else
  let pattern := D.map2 (fun e i => e / denominator * power_of (val i))%float e it in
  if negb (forallb D.wide pattern && D.no_longer D.longest pattern) then D.raise else
  let g := D.grid M D.bits29 pattern in
  let pattern := D.map2 (fun p i => D.to_grid g p * (1 / power_of (val i)))%float pattern it in
  map (fun column => D.narrow (D.dot M pattern column) +
    0)%float (D.columns (D.head_dim c) (map val it)).

Let grid_seen := grid_seen M O.

Theorem masked_is_seen q it : seen it <> [] -> short it ->
  forallb D.settled (map key it) = true -> forallb D.settled (map val it) = true ->
  D.no_longer (D.context c) it = true ->
  attend_masked q it = D.attend M c q (map key (seen it)) (map val (seen it)).
Proof.
  intros Ne K Sk Sv Ck. destruct G as (_ & _ & Fpg & Fc & n & Hn & Vpg & Vc).
  assert (Sub : forall i, In i (seen it) -> In i it) by (intros i I; now apply seen_in).
  assert (Set_ : forall (f : item -> list float), forallb D.settled (map f it) = true ->
    forallb D.settled (map f (seen it)) = true).
  { intros f H. rewrite forallb_forall in *. intros x I. apply H.
    apply in_map_iff in I as (i & <- & I). now apply in_map, Sub. }
  assert (C52 : V (D.context c) <= pow2 52) by (eapply Rle_trans; [exact Vc | apply up; lia]).
  assert (Ck1 : INR (length it) <= V (D.context c)) by (apply no_longer_val; auto).
  assert (Ck2 : D.no_longer (D.context c) (map key (seen it)) = true).
  { apply no_longer_intro; auto. rewrite map_length.
  eapply Rle_trans; [apply le_INR, seen_length | exact Ck1]. }
  assert (K2 : short (seen it)) by (eapply Rle_trans; [apply le_INR, seen_length | exact K]).
  unfold attend_masked, D.attend, power_of. cbv zeta.
  rewrite (Set_ key Sk), (Set_ val Sv), Ck2, !andb_true_r.
  set (q1 := map _ q).
  destruct (forallb D.wide q1 && D.no_longer D.longest q1)%bool eqn:Gq; [|reflexivity]. cbv [negb].
  apply andb_true_iff in Gq as [Tq Kq]. apply longest_short in Kq.
  pose proof (forallb_Forall _ _ _ wide_val Tq) as Mq. set (q2 := map _ q1).
  assert (Q2 : l1_row 29 q2).
  { destruct bits29_val as (Fs & Vs & Pl). apply (l1_val M 29); auto. lia. }
  set (score := fun i => if hidden i then neg_infinity else (D.dot M q2 (key i) + 0)%float).
  assert (Es : map (fun k => D.dot M q2 k + 0)%float (map key (seen it)) = map score (seen it)).
  { rewrite map_map. apply map_ext_in. intros i I. apply seen_in in I as [_ H]. unfold score.
  now rewrite H. }
  rewrite Es. rewrite (largest_seen score) by (intros i I H; unfold score; now rewrite H).
  set (m := D.largest (map score (seen it))).
  assert (Fsc : forall i, In i (seen it) -> fin (score i)).
  { intros i I. apply seen_in in I as [I H]. unfold score. rewrite H. rewrite forallb_forall in Sk.
    destruct (rows_fit 29 24 q2 (key i)) as [u F];
      [lia | exact Q2 | now apply settled_key, Sk, in_map |].
    destruct (dot_exact M u _ _ O F) as [F1 V1].
    assert (Z0 : forall x, fin x -> fin (x + 0)%float).
    { intros x Fx. unfold fin in *. rewrite B_add, B_0.
      destruct (B x) as [s|?| |s mm e Hb]; try easy; destruct s; easy. }
    now apply Z0. }
  assert (Fm : fin m).
  { destruct (largest_val (map score (seen it))) as [Im _].
    - destruct (seen it); easy.
    - apply Forall_map, Forall_forall. exact Fsc.
    - fold m in Im. apply in_map_iff in Im as (i & <- & I). now apply Fsc. }
  rewrite !map_map.
  set (e2 := fun i => D.to_grid (D.pattern_grid c) (D.exp (D.exp_table c) (score i - m)%float)).
  set (ex := fun i => D.exp (D.exp_table c) (score i - m)%float).
  assert (Ehid : forall i, hidden i = true -> ex i = 0%float).
  { intros i H. unfold ex, score. rewrite H, minus_finite by exact Fm. exact Far. }
  rewrite !forallb_map. rewrite (forallb_seen (fun i => D.in_unit (ex i))).
  2: { intros i _ H. rewrite (Ehid i H). now vm_compute. }
  destruct (forallb (fun i => D.in_unit (ex i)) (seen it)) eqn:Gu;
    [|reflexivity].
  assert (U1 : forall i, In i it -> fin (ex i) /\ 0 <= V (ex i) <= 1).
  { intros i I. destruct (hidden i) eqn:H.
    - rewrite (Ehid i H), V_0. split; [finite | lra].
    - rewrite forallb_forall in Gu. apply unit_val, Gu. unfold seen. rewrite filter_In.
    now rewrite H. }
  assert (Ev : forall i, In i it -> fin (e2 i) /\ on_grid (- n) (V (e2 i)) /\
    Rabs (V (e2 i)) <= pow2 (n + - n) /\
    (hidden i = true -> V (e2 i) = 0)).
  { intros i I. destruct (U1 i I) as [Fx Bx].
    assert (Ax : Rabs (V (ex i)) <= pow2 0) by (rewrite Rabs_pos_eq; simpl; lra).
    assert (Ay : Rabs (V (ex i)) <= pow2 (51 + - n)) by (eapply Rle_trans;
      [exact Ax | apply up; lia]).
    destruct (to_grid_val (D.pattern_grid c) (ex i) (- n) Fpg Fx Vpg) as (E & F' & N');
      [lia | exact Ay |].
    change (D.to_grid (D.pattern_grid c) (ex i)) with (e2 i) in E, F', N'. split; [exact F'|].
    split; [apply N'|]. split.
    - apply (near_bounded n (- n) _ (V (ex i))); [lia | exact N' |].
    now replace (n + - n)%Z with 0%Z by lia.
    - intros H. rewrite E. rewrite (Ehid i H), V_0 in *.
    apply round_to_fixed; [lia | exact Ay | apply on_grid_0]. }
  assert (Sums : forall l, (forall i, In i l -> In i it) -> INR (length l) <= pow2 (53 - n) ->
    fin (D.sum M (map e2 l)) /\ V (D.sum M (map e2 l)) = sum (map (fun i => V (e2 i)) l)).
  { intros l L Kl. destruct (sum_val M (- n) (map e2 l) O) as [F1 V1]; [lia | | |].
    - apply Forall_map, Forall_forall. intros i I. apply Ev. now apply L.
    - apply (fits_count (53 - n) n (- n)); [lia | now rewrite !map_length |].
      apply Forall_map, Forall_map, Forall_forall. intros i I. split; apply Ev; now apply L.
    - split; [exact F1|]. now rewrite V1, map_map. }
  assert (Kn : INR (length it) <= pow2 (53 - n)) by (eapply Rle_trans; [exact Ck1 | exact Vc]).
  destruct (Sums it) as [Fd1 Vd1]; auto.
  destruct (Sums (seen it)) as [Fd2 Vd2]; auto;
    [eapply Rle_trans; [apply le_INR, seen_length | exact Kn]|].
  assert (Ed : V (D.sum M (map e2 it)) = V (D.sum M (map e2 (seen it)))).
  { rewrite Vd1, Vd2. apply sum_seen. intros i I H. now apply Ev. }
  rewrite !ltb_val, V_0, Ed by (auto; finite).
  destruct (Rlt_bool_spec 0 (V (D.sum M (map e2 (seen it))))) as [Pos | _]; [|reflexivity].
  rewrite (same_value _ _ Fd1 Fd2 Ed) by lra. set (den := D.sum M (map e2 (seen it))) in *.
  rewrite !map2_self, !map2_diag. cbv beta.
  set (pat := fun i => (e2 i / den * D.power_below
    (D.clip 0x1p-149 0x1.fffffep127 (D.top (val i))))%float).
  assert (Sv' : forall i, In i it -> D.settled (val i) = true).
  { intros i I. rewrite forallb_forall in Sv. now apply Sv, in_map. }
  assert (Hp : forall i, In i it -> hidden i = true -> nil (pat i)).
  { intros i I H. destruct (Ev i I) as (Fe & _ & _ & Ze). specialize (Ze H).
    destruct (div_val (e2 i) den Fe Fd2) as [Vq Fq]; [lra | |].
    { rewrite Ze. unfold Rdiv. rewrite Rmult_0_l, Rabs_R0. apply bpow_ge_0. }
    rewrite Ze in Vq. unfold Rdiv in Vq. rewrite Rmult_0_l in Vq. unfold rnd in Vq.
    rewrite round_0 in Vq by apply valid_rnd_N.
    destruct (settled_value _ (Sv' i I)) as (_ & Fp & _).
    unfold power_of in Fp. destruct (mul_val (e2 i / den) _ Fq Fp) as [Vm Fm'].
    { rewrite Vq, Rmult_0_l, Rabs_R0. apply bpow_ge_0. }
    split; [exact Fm'|]. unfold pat. rewrite Vm, Vq, Rmult_0_l. unfold rnd.
    apply round_0, valid_rnd_N. }
  rewrite !forallb_map, (forallb_seen (fun i => D.wide (pat i))).
  2: { intros i I H. destruct (Hp i I H) as [Fp Zp]. now destruct (V_zero _ Fp Zp) as [-> | ->]. }
  assert (L20 : V D.longest = pow2 20) by (value; simpl; lra).
  rewrite !(no_longer_intro D.longest) by (finite || (rewrite L20; apply up; lia) || (rewrite L20,
    map_length; assumption)).
  rewrite !andb_true_r. destruct (forallb (fun i => D.wide (pat i)) (seen it)) eqn:Gw;
    [|reflexivity].
  assert (Mp : Forall moderate (map pat it)).
  { apply Forall_map, Forall_forall. intros i I. destruct (hidden i) eqn:H.
    - destruct (Hp i I H) as [Fp Zp]. split; [exact Fp | now left].
    - rewrite forallb_forall in Gw. apply wide_val, Gw. unfold seen. rewrite filter_In.
    now rewrite H. }
  destruct bits29_val as (Fs & Vs & Pl).
  rewrite (grid_seen 29 D.bits29 pat it) by (auto; lia).
  set (g := D.grid M D.bits29 (map pat (seen it))).
  set (pp := fun i => (D.to_grid g (pat i) *
    (1 / D.power_below (D.clip 0x1p-149 0x1.fffffep127 (D.top (val i)))))%float).
  (* what is left: the dot products with the columns of V *)
  destruct (columns_as (D.head_dim c)) as (fs & Hf & Ec). rewrite !Ec, !map_map.
  apply map_ext_in. intros f If. specialize (Hf f If).
  change (map (fun i => (D.to_grid g (e2 i / den *
    D.power_below (D.clip 0x1p-149 0x1.fffffep127 (D.top (val i))))
    * (1 / D.power_below (D.clip 0x1p-149 0x1.fffffep127 (D.top (val i)))))%float)) with (map pp).
  set (F := fun p : float * list float => (fst p / den * power_of (snd p))%float).
  assert (Fit : forall l, (forall i, In i l -> In i it) ->
    l1_row 29 (map (D.to_grid g) (map pat l)) ->
    exists u, bfits u (pairs (map pp l) (map f (map val l)))).
  { intros l L R. destruct (weighted_fit g F f (map e2 l) (map val l) Hf) as [u B0].
    - rewrite forallb_map, forallb_forall. intros i I. apply Sv'. now apply L.
    - rewrite combine_map. rewrite (map_map _ F). exact R.
    - exists u. rewrite combine_map in B0. rewrite (map_map (fun i => (e2 i, val i))) in B0.
    exact B0. }
  destruct (Fit it) as [u1 B1]; [easy | |].
  { unfold g. rewrite <- (grid_seen 29 D.bits29 pat it) by (auto; lia).
  apply (l1_val M 29); auto; [lia|].
    unfold short. rewrite map_length. exact K. }
  assert (Mp2 : Forall moderate (map pat (seen it))).
  { apply Forall_map, Forall_forall. intros i I. apply (proj1 (Forall_forall _ _) Mp).
  now apply in_map, Sub. }
  assert (Kp2 : short (map pat (seen it))) by (unfold short; rewrite map_length; exact K2).
  destruct (Fit (seen it)) as [u2 B2]; [exact Sub | apply (l1_val M 29); auto; lia |].
  destruct (dot_exact M u1 _ _ O B1) as [F1 V1], (dot_exact M u2 _ _ O B2) as [F2 V2].
  rewrite !map_map in *. apply narrow_plus_zero; auto. rewrite V1, V2, !bdot_map. apply sum_seen.
  intros i I H. enough (Z : V (pp i) = 0) by (rewrite Z; ring).
  destruct (Hp i I H) as [Fp Zp].
  assert (Zg : nil (D.to_grid g (pat i))).
  { destruct (zeros_or (map pat (seen it))) as [Z | Nz].
    - assert (E0 : g = 0%float).
      { apply grid_zeros; auto using moderate_fin. destruct (seen it); easy. }
      rewrite E0, to_grid_zero by auto. split; [finite | exact V_0].
    - destruct (grid_val M 29 D.bits29 _ O ltac:(lia) Fs Vs Mp2 Nz Kp2) as
      (u & Vu & _ & Fu & Ur & _). fold g in Vu, Fu.
      assert (Bx : Rabs (V (pat i)) <= pow2 (51 + u)) by (rewrite Zp, Rabs_R0; apply bpow_ge_0).
      destruct (to_grid_val g (pat i) u Fu Fp Vu ltac:(lia) Bx) as (E & F' & _). split; [exact F'|].
      rewrite E. rewrite Zp in *. apply round_to_fixed; [lia | exact Bx | apply on_grid_0]. }
  destruct Zg as [Fg Zg]. destruct (settled_value _ (Sv' i I)) as (Vw & Fw & J & _).
  assert (V1' : V 1 = 1) by (value; simpl; lra).
  pose proof (bpow_gt_0 radix2 (exponent (val i))) as Pj.
  assert (Inv : 1 / pow2 (exponent (val i)) = pow2 (- exponent (val i))) by (rewrite bpow_opp;
    field; lra).
  destruct (div_val 1 (power_of (val i))) as [Vd Fd]; [finite | exact Fw | lra | |].
  { rewrite V1', Vw, Inv, Rabs_pos_eq by apply bpow_ge_0. apply up. lia. }
  destruct (mul_val (D.to_grid g (pat i)) (1 / power_of (val i)) Fg Fd) as [Vm _].
  { rewrite Zg, Rmult_0_l, Rabs_R0. apply bpow_ge_0. }
  unfold pp. fold (power_of (val i)). change (e2 i / den * power_of (val i))%float with (pat i).
  rewrite Vm, Zg, Rmult_0_l. unfold rnd. apply round_0, valid_rnd_N.
Qed.

End Masked.

(* A block of queries, as layers.py's `attention` takes them: one list of keys for all of them, and
   for each query what is hidden from it. *)
Theorem masked_block_is_seen M c (queries : list (list float * list item)) : orderly M -> good c ->
  D.exp (D.exp_table c) neg_infinity = 0%float ->
  Forall (fun p => seen (snd p) <> [] /\ short (snd p) /\
    forallb D.settled (map key (snd p)) = true /\ forallb D.settled (map val (snd p)) = true /\
    D.no_longer (D.context c) (snd p) = true) queries ->
  map (fun p => attend_masked M c (fst p) (snd p)) queries
  = map (fun p => D.attend M c (fst p) (map key (seen (snd p))) (map val (seen (snd p)))) queries.
Proof.
  intros O G Far H. apply map_ext_in. intros p I.
  destruct (proj1 (Forall_forall _ _) H p I) as (H1 & H2 & H3 & H4 & H5).
  now apply masked_is_seen.
Qed.

Print Assumptions masked_block_is_seen.
Print Assumptions masked_is_seen.
