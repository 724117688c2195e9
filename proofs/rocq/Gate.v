(* Gate.v -- exp of any finite number is not below 0, though it may be infinite; so the activation
   of finite numbers is finite.  And exp(0) = 1.  Of the table of exp it asks what `good_table` and
   `sound_table` compute. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Narrow Attend Settle Calm
  NoRaise Range Norm.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.

Lemma nonneg_val e : ((0 <=? e) && (abs e <=? greatest))%float = true -> fin e /\ 0 <= V e.
Proof.
  intros H. apply andb_true_iff in H as [H1 H2].
  assert (Fe : fin e) by (apply (leb_fin _ _ H2); unfold greatest; finite).
  rewrite leb_val, V_0 in H1 by (auto; finite). split; [exact Fe|].
  now destruct (Rle_bool_spec 0 (V e)).
Qed.
Lemma entry_val table i j : sound_table table = true ->
  let e := D.at_float 0%float (D.at_float [] table i) j in fin e /\ 0 <= V e.
Proof.
  intros S e. assert (Z : e = 0%float -> fin e /\ 0 <= V e).
  { intros ->. rewrite V_0. split; [finite | lra]. }
  destruct (at_float_any [] table i) as [I | E].
  - destruct (at_float_any 0%float (D.at_float [] table i) j) as [J | J]; [|now apply Z].
    unfold sound_table in S. rewrite forallb_forall in S. specialize (S _ I).
    rewrite forallb_forall in S. now apply nonneg_val, S.
  - apply Z. unfold e. now rewrite E.
Qed.

(** * Sums that may overflow *)
Definition positive (x : float) : Prop := (fin x /\ 0 <= V x) \/ x = infinity.
Lemma sign_nonneg (x : b64) : is_finite x = true -> Bsign x = true -> B2R x <= 0.
Proof.
  destruct x as [s|s| |s m e H]; intros F S; simpl in *; try easy; try lra. subst s.
  apply Rlt_le. now apply F2R_lt_0.
Qed.
Lemma add_up x y : fin x -> fin y -> 0 <= V x + V y ->
  (fin (x + y)%float /\ V (x + y)%float = rnd (V x + V y)) \/ (x + y)%float = infinity.
Proof.
  intros Fx Fy P. unfold V, fin in *.
  pose proof (Bplus_correct 53%Z 1024%Z Binary64.Hprec Binary64.Hmax rne (B x) (B y) Fx Fy) as C.
  destruct (Rlt_bool_spec (Rabs (round radix2 (SpecFloat.fexp 53 1024) (round_mode rne)
    (B2R (B x) + B2R (B y)))) (pow2 1024)) as [L | L].
  - left. rewrite B_add. split; apply C.
  - right. destruct C as [C E]. destruct (Bsign (B x)) eqn:Sx.
    + exfalso. symmetry in E. pose proof (sign_nonneg _ Fx Sx). pose proof (sign_nonneg _ Fy E).
      assert (Z : B2R (B x) + B2R (B y) = 0) by lra. rewrite Z, round_0, Rabs_R0 in L by exact _.
      pose proof (bpow_gt_0 radix2 1024). lra.
    + apply Prim2B_inj. change (B (x + y) = B infinity). apply B2SF_inj. rewrite B_add.
      etransitivity; [exact C|]. unfold B. rewrite B2SF_Prim2B. now vm_compute.
Qed.
Lemma one_more e : positive e -> (fin (e + 1)%float /\ 1 <= V (e + 1)%float) \/
  (e + 1)%float = infinity.
Proof.
  intros [[Fe Pe] | ->]; [|right; now vm_compute].
  destruct (add_up e 1 Fe) as [[F E] | I]; [finite | rewrite V_1; lra | | now right].
  left. split; [exact F|]. rewrite E, V_1. change 1 with (pow2 0) at 1.
  apply rnd_ge_pow; [lia|]. simpl. lra.
Qed.
Lemma over x d r : finite_at_most r x -> (r <= pow2 900) ->
  (fin d /\ 1 <= V d) \/ d = infinity -> finite_at_most r (x / d)%float.
Proof.
  intros [Fx Bx] R [[Fd Pd] | ->].
  - assert (Q : Rabs (V x / V d) <= Rabs (V x)).
    { unfold Rdiv. rewrite Rabs_mult, Rabs_inv, (Rabs_pos_eq (V d)) by lra.
      rewrite <- (Rmult_1_r (Rabs (V x))) at 2. apply Rmult_le_compat_l; [apply Rabs_pos|].
      rewrite <- Rinv_1. apply Rinv_le; lra. }
    destruct (div_val x d Fx Fd) as [Vq Fq]; [lra | |].
    { apply Rle_trans with (pow2 900); [lra | apply up; lia]. }
    split; [exact Fq|]. rewrite Vq.
    eapply Rle_trans; [|exact Bx].
    apply abs_round_le_generic; [exact _ | apply valid_rnd_N | | exact Q].
    apply generic_format_abs, V_format.
  - assert (E : exists s, B (x / infinity) = B754_zero s).
    { unfold B. rewrite div_equiv. unfold fin, B in Fx.
      assert (I : Prim2B infinity = B754_infinity false).
      { apply B2SF_inj. rewrite B2SF_Prim2B. now vm_compute. }
      rewrite I. destruct (Prim2B x) as [?|?| |? ? ? ?]; try easy; now eexists. }
    destruct E as [s E]. split; unfold fin, V; rewrite E; [reflexivity|]. simpl.
    rewrite Rabs_R0. pose proof (Rabs_pos (V x)). lra.
Qed.

(** * exp *)
Lemma last_any f power : fin f -> Rabs (V f) <= pow2 (-1) -> fin power -> 0 <= V power ->
  positive (slope f * f * power + power)%float.
Proof.
  intros Ff Bf Fp Pp. destruct (slope_val f Ff Bf) as [Fs Bs].
  assert (As : Rabs (V (slope f)) <= pow2 (-7)) by (rewrite Rabs_pos_eq; lra).
  destruct (product (slope f) f (-7) (-1) Fs Ff As Bf ltac:(lia)) as [Fg Bg].
  change (-7 + -1)%Z with (-8)%Z in Bg. set (g := (slope f * f)%float) in *.
  assert (P8 : pow2 (-8) = 1 / 256) by (simpl; lra). apply Rabs_le_inv in Bg.
  assert (T : fin (g * power)%float /\ V (g * power)%float = rnd (V g * V power)).
  { unfold V, fin in *. rewrite B_mul.
    pose proof (Bmult_correct 53%Z 1024%Z Binary64.Hprec Binary64.Hmax rne (B g) (B power)) as C.
    rewrite Fg, Fp in C. rewrite Rlt_bool_true in C; [now split; apply C|].
    apply Rle_lt_trans with (pow2 1023); [|apply bpow_lt; lia].
    apply (rnd_le _ 1023); [lia|].
    pose proof (abs_B2R_lt_emax 53 1024 (B power)) as L. rewrite Rabs_pos_eq in L by exact Pp.
    rewrite Rabs_mult, (Rabs_pos_eq (B2R (B power))) by exact Pp.
    assert (E : pow2 1024 = 2 * pow2 1023).
    { change 1024%Z with (1 + 1023)%Z. rewrite bpow_plus. simpl (bpow radix2 1). lra. }
    rewrite E in L. assert (G : Rabs (B2R (B g)) <= 1 / 2) by (apply Rabs_le; lra).
    pose proof (Rabs_pos (B2R (B g))). apply Rle_trans with (1 / 2 * B2R (B power)); [nra | lra]. }
  destruct T as [Ft Vt].
  assert (Lo : - V power <= V (g * power)%float).
  { rewrite Vt, <- (rnd_fix (- V power)) by (apply generic_format_opp, V_format).
    apply rnd_mono. nra. }
  destruct (add_up (g * power)%float power Ft Fp) as [[Fr Vr] | I]; [lra | left | now right].
  split; [exact Fr|]. rewrite Vr, <- rnd_0. apply rnd_mono. lra.
Qed.

Theorem exp_positive table x : sound_table table = true -> fin x -> Rabs (V x) <= pow2 900 ->
  positive (D.exp table x).
Proof.
  intros S Fx X. unfold D.exp.
  assert (V256 : V 256 = 256) by (value; simpl; lra).
  assert (VL : V (-190976) = -190976) by (value; simpl; lra).
  assert (VH : 1 <= V 0x1.62e4395810625p+17 <= 200000) by (split; bounded).
  destruct (mul_val x 256 Fx) as [_ Fx']; [finite | |].
  { rewrite V256, Rabs_mult, (Rabs_pos_eq 256) by lra. apply Rle_trans with (pow2 (900 + 8)).
    - rewrite bpow_plus. change (pow2 8) with 256. lra.
    - apply up. lia. }
  set (f0 := D.clip (-190976) 0x1.62e4395810625p+17 (x * 256)).
  assert (F0 : fin f0 /\ -190976 <= V f0 <= 200000).
  { unfold f0, D.clip. rewrite (ltb_val (x * 256)), VL by (auto; finite).
    destruct (Rlt_bool_spec (V (x * 256)%float) (-190976)); cbv zeta.
    - rewrite ltb_val, VL by finite. rewrite Rlt_bool_false by lra. rewrite VL.
      split; [finite | lra].
    - rewrite ltb_val by (auto; finite).
      destruct (Rlt_bool_spec (V 0x1.62e4395810625p+17) (V (x * 256)%float)).
      + split; [finite | lra].
      + split; [exact Fx' | lra]. }
  destruct F0 as [Ff0 B0]. clearbody f0.
  assert (P51 : IZR (2^51) = pow2 51) by reflexivity.
  destruct (nearest_val f0 Ff0) as (n & Fn & Vn & Near).
  { rewrite <- P51. apply Rabs_le. lra. }
  cbv zeta. set (f := (f0 - D.nearest f0)%float).
  assert (Vf : fin f /\ Rabs (V f) <= pow2 (-1)).
  { assert (Df : Rabs (V f0 - V (D.nearest f0)) <= pow2 (-1)).
    { rewrite Vn, Rabs_minus_sym. simpl. lra. }
    destruct (sub_val f0 (D.nearest f0) Ff0 Fn) as [Vs Fs]; [small|]. split; [exact Fs|].
    unfold f. rewrite Vs. apply rnd_le; [lia | exact Df]. }
  destruct Vf as [Ff Bf]. clearbody f.
  set (i := D.nearest ((D.nearest f0 + 190976 - 127.5) * 0x1p-8)).
  destruct (entry_val table i (D.nearest f0 + 190976 - i * 256) S) as [Fp Pp].
  now apply (last_any f).
Qed.

Theorem exp_zero table x : good_table table = true -> fin x -> V x = 0 -> D.exp table x = 1%float.
Proof.
  intros G Fx Z. apply andb_true_iff in G as [_ G].
  assert (One : D.at_float 0%float (D.at_float [] table 746) 0 = 1%float).
  { rewrite at_float_746. destruct (nth 746 table []) as [|e es]; [easy|].
    cbn [D.at_float nth] in *. change (0 =? 0)%float with true. cbv iota.
    pose proof (V_1) as V1. assert (Fe : fin e).
    { rewrite eqb_spec, <- !B2SF_Prim2B in G. unfold fin, B.
      assert (E1 : exists m k, B2SF (Prim2B 1) = S754_finite false m k)
        by (rewrite B2SF_Prim2B; now eexists; eexists; vm_compute).
      destruct E1 as (m & k & E1). rewrite E1 in G.
      destruct (Prim2B e) as [?|[]| |[] ? ? ?]; easy. }
    rewrite eqb_val, V1 in G by (auto; finite).
    destruct (Req_bool_spec (V e) 1) as [Q|]; [|easy].
    apply same_value; [exact Fe | finite | now rewrite V1 | lra]. }
  assert (E : forall z, z = 0%float \/ z = (-0)%float -> exists c, D.exp table z =
    (c * D.at_float 0%float (D.at_float [] table 746) 0
     + D.at_float 0%float (D.at_float [] table 746) 0)%float /\ (c = 0%float \/ c = (-0)%float)).
  { intros z [-> | ->]; eexists; split; [reflexivity | left; now vm_compute
      | reflexivity | right; now vm_compute]. }
  destruct (E x (V_zero x Fx Z)) as (c & -> & Ec). rewrite One.
  destruct Ec as [-> | ->]; reflexivity.
Qed.

(** * The activation *)
Theorem gated_at_most c b gate rate : sound_table (D.exp_table c) = true -> (4 <= b <= 60)%Z ->
  at_most (pow2 b) gate -> at_most (pow2 b) rate -> at_most (pow2 (b + b)) (D.gated c gate rate).
Proof.
  intros S Hb [[Fg _] Bg] [[Fu _] Bu]. unfold D.gated.
  set (y := match D.hidden_act c with D.silu => gate | _ => _ end).
  assert (Y : fin y /\ Rabs (V y) <= pow2 900).
  { unfold y. destruct (D.hidden_act c); [split; [exact Fg|]; small|].
    assert (C : forall x e, 0 <= V x <= pow2 e -> Rabs (V x) <= pow2 e).
    { intros x e H. rewrite Rabs_pos_eq; lra. }
    assert (V1 : 0 <= V 0x1.6e4e26d4801f7p-5 <= pow2 0) by (split; bounded).
    assert (V2 : 0 <= V 0x1.9884533d43651p+0 <= pow2 1) by (split; bounded).
    destruct (product gate gate b b Fg Fg Bg Bg) as [F1 B1]; [lia|].
    destruct (product _ 0x1.6e4e26d4801f7p-5 (b + b) 0 F1) as [F2 B2];
      [finite | exact B1 | now apply C | lia |].
    set (z := (gate * gate * 0x1.6e4e26d4801f7p-5)%float) in *.
    assert (B3 : Rabs (V z + V 1) <= pow2 (b + b + 0 + 1)).
    { eapply Rle_trans; [apply Rabs_triang|]. rewrite V_1, Rabs_R1, (bpow_plus _ _ 1).
      simpl (bpow radix2 1). assert (pow2 0 <= pow2 (b + b + 0)) by (apply up; lia).
      simpl (bpow radix2 0) in *. lra. }
    destruct (add_val z 1 F2) as [Va Fa]; [finite | small |].
    assert (B4 : Rabs (V (z + 1)%float) <= pow2 (b + b + 0 + 1)) by (rewrite Va; apply rnd_le;
      [lia | exact B3]).
    destruct (product _ gate (b + b + 0 + 1) b Fa Fg B4 Bg) as [F5 B5]; [lia|].
    destruct (product _ 0x1.9884533d43651p+0 (b + b + 0 + 1 + b) 1 F5) as [F6 B6];
      [finite | exact B5 | now apply C | lia |].
    split; [exact F6|]. small. }
  destruct Y as [Fy By]. clearbody y. destruct (opp_val y) as [Vo Fo].
  pose proof (exp_positive (D.exp_table c) (- y)%float S (Fo Fy)) as P.
  rewrite Vo, Rabs_Ropp in P. specialize (P By).
  destruct (over gate _ (pow2 b) (conj Fg Bg) ltac:(apply up; lia) (one_more _ P)) as [Fq Bq].
  destruct (product _ rate b b Fq Fu Bq Bu) as [Fm Bm]; [lia|].
  apply narrow_at_most; [apply bound_pow; lia | now split].
Qed.

Print Assumptions exp_positive.
Print Assumptions exp_zero.
Print Assumptions gated_at_most.
