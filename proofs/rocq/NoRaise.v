(* NoRaise.v -- one of attention's checks that answer nan is true of every run: an exponential of
   what is not above 0 is from 0 to 1.  Of the table of exp it asks what `good_table` computes. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Calm.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.

Lemma V_below_one : V below_one = 1 - pow2 (-8) + pow2 (-17).
Proof. unfold below_one. value. simpl. lra. Qed.

(** * Looking up *)
Lemma V_1 : V 1 = 1.
Proof. value. simpl. lra. Qed.
Lemma minus_one i k : fin i -> V i = IZR k -> (Z.abs k <= 2^52)%Z ->
  fin (i - 1)%float /\ V (i - 1)%float = IZR (k - 1).
Proof.
  intros F E K. destruct (sub_val i 1 F) as [Vs Fs]; [finite | |].
  - rewrite E, V_1. rewrite <- minus_IZR, <- abs_IZR.
    apply Rle_trans with (IZR (2^53)); [apply IZR_le; lia|]. change (IZR (2^53)) with (pow2 53).
    apply up. lia.
  - split; [exact Fs|]. rewrite Vs, E, V_1, <- minus_IZR.
    replace (IZR (k - 1)) with (IZR (k - 1) * pow2 0) by (simpl; ring).
    unfold rnd. apply round_generic; [apply valid_rnd_N | apply int_format; lia].
Qed.
Lemma at_float_in {A} (d : A) xs : forall i k n, fin i -> V i = IZR k -> (0 <= k < Z.of_nat n)%Z ->
  (Z.of_nat n <= 2^52)%Z -> In (D.at_float d xs i) (firstn n xs) \/ D.at_float d xs i = d.
Proof.
  induction xs as [|x xs IH]; intros i k n F E K N; [now right|]. destruct n as [|n]; [lia|].
  cbn [D.at_float firstn]. rewrite eqb_val, E, V_0 by (auto; finite).
  destruct (Req_bool_spec (IZR k) 0) as [Z | Nz]; [left; now left|].
  destruct (minus_one i k F E) as [F' E']; [lia|].
  assert (k <> 0%Z) by (intros ->; now apply Nz).
  destruct (IH _ _ n F' E') as [I | I]; [lia | lia | left; now right | now right].
Qed.
Lemma at_float_any {A} (d : A) xs : forall i, In (D.at_float d xs i) xs \/ D.at_float d xs i = d.
Proof.
  induction xs as [|x xs IH]; intros i; [now right|]. cbn [D.at_float].
  destruct (i =? 0)%float; [left; now left|]. destruct (IH (i - 1)%float);
    [left; now right | now right].
Qed.
Lemma at_float_746 (xs : list (list float)) : D.at_float [] xs 746 = nth 746 xs [].
Proof.
  assert (H : forall k xs i, fin i -> V i = IZR (Z.of_nat k) -> (Z.of_nat k <= 2^52)%Z ->
    D.at_float [] xs i = nth k xs ([] : list float)).
  { induction k as [|k IH]; intros [|x ys] i F E K; try reflexivity; cbn [D.at_float nth];
      rewrite eqb_val, E, V_0 by (auto; finite).
    - now rewrite Req_bool_true.
    - rewrite Req_bool_false by (apply not_0_IZR; lia). apply IH; [| |lia].
      + apply (minus_one i _ F E). lia.
      + rewrite (proj2 (minus_one i _ F E ltac:(lia))). f_equal. lia. }
  apply H; [finite | value; simpl; lra | now vm_compute].
Qed.

(** * The polynomial *)
Lemma rnd_mono a b : a <= b -> rnd a <= rnd b.
Proof. intros H. apply round_le; [exact _ | apply valid_rnd_N | exact H]. Qed.
Lemma rnd_fix a : generic_format radix2 fexp64 a -> rnd a = a.
Proof. intros H. apply round_generic; [apply valid_rnd_N | exact H]. Qed.
Lemma rnd_0 : rnd 0 = 0.
Proof. apply rnd_fix, generic_format_0. Qed.
Definition slope (f : float) : float :=
  (((f * 0x1.5555555555555p-37 + 0x1.55555aaaaaaaap-27) * f + 0x1p-17) * f
   + 0x1.ffffffffffeabp-9)%float.

Ltac bounded :=
  rewrite !V_lit; match goal with |- context [Prim2SF ?x] =>
    let y := eval vm_compute in (Prim2SF x) in change (Prim2SF x) with y end;
  unfold SF2R, F2R, Fnum, Fexp, cond_Zopp; simpl; lra.
Ltac small := eapply Rle_trans; [eassumption | apply up; lia].
Lemma product f g e d : fin f -> fin g -> Rabs (V f) <= pow2 e -> Rabs (V g) <= pow2 d ->
  (-1074 <= e + d <= 1000)%Z -> fin (f * g)%float /\ Rabs (V (f * g)%float) <= pow2 (e + d).
Proof.
  intros Ff Fg Bf Bg R. assert (P : Rabs (V f * V g) <= pow2 (e + d)).
  { rewrite Rabs_mult, bpow_plus. apply Rmult_le_compat; auto using Rabs_pos. }
  destruct (mul_val f g Ff Fg) as [Vm Fm]; [small|]. split; [exact Fm|]. rewrite Vm.
  apply rnd_le; [lia | exact P].
Qed.
Lemma slope_val f : fin f -> Rabs (V f) <= pow2 (-1) ->
  fin (slope f) /\ 0 <= V (slope f) <= pow2 (-7).
Proof.
  intros Ff Bf. unfold slope.
  assert (C : forall x e, fin x -> 0 <= V x <= pow2 e -> Rabs (V x) <= pow2 e).
  { intros x e _ H. rewrite Rabs_pos_eq; lra. }
  assert (V3 : 0 <= V 0x1.5555555555555p-37 <= pow2 (-36)) by bounded.
  assert (V2 : 0 <= V 0x1.55555aaaaaaaap-27 <= pow2 (-26)) by bounded.
  assert (V1 : 0 <= V 0x1p-17 <= pow2 (-17)) by bounded.
  assert (V0 : pow2 (-9) <= V 0x1.ffffffffffeabp-9 <= pow2 (-8)) by bounded.
  assert (S : forall x y e d, fin x -> fin y -> Rabs (V x) <= pow2 d -> Rabs (V y) <= pow2 d ->
    (e = d + 1)%Z -> (-1000 <= d <= 900)%Z ->
    fin (x + y)%float /\ Rabs (V (x + y)%float) <= pow2 e).
  { intros x y e d Fx Fy Bx By -> R. assert (P : Rabs (V x + V y) <= pow2 (d + 1)).
    { eapply Rle_trans; [apply Rabs_triang|]. rewrite bpow_plus. simpl (bpow radix2 1). lra. }
    destruct (add_val x y Fx Fy) as [Va Fa]; [small|]. split; [exact Fa|]. rewrite Va.
    apply rnd_le; [lia | exact P]. }
  destruct (product f 0x1.5555555555555p-37 (-1) (-36)) as [F1 B1];
    [exact Ff | finite | exact Bf | apply C; [finite | exact V3] | lia |].
  destruct (S _ 0x1.55555aaaaaaaap-27%float (-25)%Z (-26)%Z F1) as [F2 B2];
    [finite | small | apply C; [finite | exact V2] | reflexivity | lia |].
  destruct (product _ f (-25) (-1) F2 Ff B2 Bf ltac:(lia)) as [F3 B3].
  destruct (S _ 0x1p-17%float (-16)%Z (-17)%Z F3) as [F4 B4];
    [finite | small | apply C; [finite | exact V1] | reflexivity | lia |].
  destruct (product _ f (-16) (-1) F4 Ff B4 Bf ltac:(lia)) as [F5 B5].
  set (q := ((_ + 0x1p-17) * f)%float) in *. change (-16 + -1)%Z with (-17)%Z in B5.
  assert (Bq := Rabs_le_inv _ _ B5).
  assert (P17 : pow2 (-17) <= pow2 (-9)) by (apply up; lia).
  assert (P7 : pow2 (-7) = 2 * pow2 (-8)) by (simpl; lra).
  assert (P8 : pow2 (-9) <= pow2 (-8)) by (apply up; lia).
  destruct (add_val q 0x1.ffffffffffeabp-9 F5) as [Va Fa]; [finite | |].
  { rewrite Rabs_pos_eq by lra. apply Rle_trans with (pow2 (-7)); [lra | apply up; lia]. }
  split; [exact Fa|]. rewrite Va. split.
  - rewrite <- rnd_0. apply rnd_mono. lra.
  - rewrite <- (rnd_fix (pow2 (-7))); [apply rnd_mono; lra|].
    apply generic_format_bpow. unfold FLT_exp. lia.
Qed.

(* (1 + slope f * f) * power, as exp computes it *)
Lemma last_step f power : fin f -> Rabs (V f) <= pow2 (-1) -> fin power ->
  0 <= V power <= 1 -> (V power <= V below_one \/ V f <= 0) ->
  D.in_unit (slope f * f * power + power)%float = true.
Proof.
  intros Ff Bf Fp Bp H. destruct (slope_val f Ff Bf) as [Fs Bs].
  assert (As : Rabs (V (slope f)) <= pow2 (-7)) by (rewrite Rabs_pos_eq; lra).
  destruct (product (slope f) f (-7) (-1) Fs Ff As Bf ltac:(lia)) as [Fg Bg].
  change (-7 + -1)%Z with (-8)%Z in Bg.
  assert (Sg : V f <= 0 -> V (slope f * f)%float <= 0).
  { intros L. destruct (mul_val (slope f) f Fs Ff) as [-> _].
    - rewrite Rabs_mult. apply Rle_trans with (pow2 (-7) * pow2 (-1)).
      + apply Rmult_le_compat; auto using Rabs_pos.
      + rewrite <- bpow_plus. apply up. lia.
    - rewrite <- rnd_0. apply rnd_mono. nra. }
  set (g := (slope f * f)%float) in *.
  assert (P8 : pow2 (-8) = 1 / 256) by (simpl; lra).
  assert (P17 : pow2 (-17) = 1 / 131072) by (simpl; lra).
  assert (Bg' := Rabs_le_inv _ _ Bg).
  destruct (mul_val g power Fg Fp) as [Vt Ft].
  { rewrite Rabs_mult, (Rabs_pos_eq (V power)) by lra.
  apply Rle_trans with (pow2 0); [|apply up; lia].
    pose proof (Rabs_pos (V g)). simpl (bpow radix2 0). nra. }
  assert (Lo : - V power <= V (g * power)%float).
  { rewrite Vt, <- (rnd_fix (- V power)) by (apply generic_format_opp, V_format).
    apply rnd_mono. nra. }
  assert (Hi : V (g * power)%float + V power <= 1).
  { destruct H as [L | L].
    - rewrite V_below_one in L.
      assert (Fmt : generic_format radix2 fexp64 (IZR 130561 * pow2 (-25))).
      { apply int_format; [lia | lia]. }
      enough (V (g * power)%float <= IZR 130561 * pow2 (-25)) by (simpl in *; lra).
      rewrite Vt, <- (rnd_fix _ Fmt). apply rnd_mono. simpl (bpow radix2 (-25)). nra.
    - specialize (Sg L). enough (V (g * power)%float <= 0) by lra.
      rewrite Vt, <- rnd_0. apply rnd_mono. nra. }
  assert (Up : V (g * power)%float <= 1) by lra.
  destruct (add_val (g * power)%float power Ft Fp) as [Vr Fr].
  { apply Rle_trans with (pow2 1); [|apply up; lia]. simpl (bpow radix2 1). apply Rabs_le. lra. }
  unfold D.in_unit. rewrite !leb_val, V_0, V_1, Vr by (auto; finite). apply andb_true_iff.
  split; apply Rle_bool_true.
  - rewrite <- rnd_0. apply rnd_mono. lra.
  - assert (F1 : generic_format radix2 fexp64 1).
    { replace 1 with (IZR 1 * pow2 0) by (simpl; lra). apply int_format; lia. }
    rewrite <- (rnd_fix 1 F1). apply rnd_mono. lra.
Qed.

(** * exp *)
Lemma unit_entry table row j : good_table table = true -> In row (firstn 746 table) \/ row = [] ->
  let power := D.at_float 0%float row j in
  fin power /\ 0 <= V power <= 1 /\ V power <= V below_one.
Proof.
  intros G R power. rewrite V_below_one.
  assert (P : pow2 (-17) <= pow2 (-8)) by (apply up; lia).
  assert (Z : power = 0%float -> fin power /\ 0 <= V power <= 1 /\
    V power <= 1 - pow2 (-8) + pow2 (-17)).
  { intros ->. rewrite V_0. split; [finite|]. simpl. lra. }
  destruct R as [I | ->]; [|now apply Z].
  destruct (at_float_any 0%float row j) as [J | J]; [|now apply Z].
  apply andb_true_iff in G as [G _]. rewrite forallb_forall in G. specialize (G _ I).
  rewrite forallb_forall in G. specialize (G _ J). fold power in G.
  apply andb_true_iff in G as [G1 G2].
  assert (Fp : fin power).
  { rewrite leb_spec, <- !B2SF_Prim2B in G1, G2. unfold fin, B. fold (B power) in *.
    assert (E0 : B2SF (Prim2B 0) = S754_zero false) by (rewrite B2SF_Prim2B; now vm_compute).
    assert (E1 : exists m e, B2SF (Prim2B below_one) = S754_finite false m e)
      by (rewrite B2SF_Prim2B; now eexists; eexists; vm_compute).
    destruct E1 as (m & e & E1). rewrite E0 in G1. rewrite E1 in G2. unfold B in *.
    destruct (Prim2B power) as [?|[]| |[] ? ? ?]; easy. }
  assert (Fb : fin below_one) by (unfold below_one; finite).
  rewrite leb_val, V_0 in G1 by (auto; finite). rewrite leb_val, V_below_one in G2 by auto.
  split; [exact Fp|].
  destruct (Rle_bool_spec 0 (V power)); [|easy].
  destruct (Rle_bool_spec (V power) (1 - pow2 (-8) + pow2 (-17))); [|easy]. lra.
Qed.

Lemma nearest_val x : fin x -> Rabs (V x) <= pow2 51 ->
  exists k, fin (D.nearest x) /\ V (D.nearest x) = IZR k /\ Rabs (IZR k - V x) <= 1 / 2.
Proof.
  intros F H. destruct (round_val x D.ROUND 0) as (_ & Fr & [k Hk] & Near);
    [finite | exact F | rewrite V_ROUND; simpl; lra | lia | exact H |].
  unfold D.nearest. exists k. simpl (bpow radix2 0) in *. rewrite Rmult_1_r in Hk.
  rewrite Hk in *. split; [exact Fr|]. split; [reflexivity|]. lra.
Qed.
Lemma exact_sum x y a b u : fin x -> fin y -> V x = IZR a * pow2 u -> V y = IZR b * pow2 u ->
  (Z.abs (a + b) <= 2^53)%Z -> (-1000 <= u <= 900)%Z ->
  fin (x + y)%float /\ V (x + y)%float = IZR (a + b) * pow2 u.
Proof.
  intros Fx Fy Ex Ey N U.
  assert (E : V x + V y = IZR (a + b) * pow2 u) by (rewrite Ex, Ey, plus_IZR; ring).
  destruct (add_val x y Fx Fy) as [Va Fa].
  { rewrite E, Rabs_mult, (Rabs_pos_eq (pow2 u)), <- abs_IZR by apply bpow_ge_0.
    apply Rle_trans with (pow2 (53 + u)); [|apply up; lia]. rewrite bpow_plus.
    apply Rmult_le_compat_r; [apply bpow_ge_0|]. change (pow2 53) with (IZR (2^53)).
    now apply IZR_le. }
  split; [exact Fa|]. rewrite Va, E. apply rnd_fix, int_format; lia.
Qed.
Lemma exact_difference x y a b u : fin x -> fin y -> V x = IZR a * pow2 u -> V y = IZR b * pow2 u ->
  (Z.abs (a - b) <= 2^53)%Z -> (-1000 <= u <= 900)%Z ->
  fin (x - y)%float /\ V (x - y)%float = IZR (a - b) * pow2 u.
Proof.
  intros Fx Fy Ex Ey N U.
  assert (E : V x - V y = IZR (a - b) * pow2 u) by (rewrite Ex, Ey, minus_IZR; ring).
  destruct (sub_val x y Fx Fy) as [Va Fa].
  { rewrite E, Rabs_mult, (Rabs_pos_eq (pow2 u)), <- abs_IZR by apply bpow_ge_0.
    apply Rle_trans with (pow2 (53 + u)); [|apply up; lia]. rewrite bpow_plus.
    apply Rmult_le_compat_r; [apply bpow_ge_0|]. change (pow2 53) with (IZR (2^53)).
    now apply IZR_le. }
  split; [exact Fa|]. rewrite Va, E. apply rnd_fix, int_format; lia.
Qed.

Theorem exp_in_unit table x : good_table table = true -> fin x -> - pow2 900 <= V x <= 0 ->
  D.in_unit (D.exp table x) = true.
Proof.
  intros G Fx X. unfold D.exp.
  assert (V256 : V 256 = 256) by (value; simpl; lra).
  assert (VL : V (-190976) = -190976) by (value; simpl; lra).
  assert (VH : 1 <= V 0x1.62e4395810625p+17) by bounded.
  assert (Vr : V 190976 = 190976) by (value; simpl; lra).
  assert (Vm : V 127.5 = IZR 255 * pow2 (-1)) by (value; simpl; lra).
  (* clipped: from -190976 to 0 *)
  destruct (mul_val x 256 Fx) as [Vx Fx']; [finite | |].
  { rewrite V256. apply Rle_trans with (pow2 908); [|apply up; lia].
    change 908%Z with (900 + 8)%Z. rewrite bpow_plus. change (pow2 8) with 256.
    apply Rabs_le. lra. }
  rewrite V256 in Vx.
  assert (Neg : V (x * 256)%float <= 0) by (rewrite Vx, <- rnd_0; apply rnd_mono; lra).
  set (f0 := D.clip (-190976) 0x1.62e4395810625p+17 (x * 256)).
  assert (F0 : fin f0 /\ -190976 <= V f0 <= 0).
  { unfold f0, D.clip. rewrite (ltb_val (x * 256)), VL by (auto; finite).
    destruct (Rlt_bool_spec (V (x * 256)%float) (-190976)); cbv zeta.
    - rewrite ltb_val, VL by finite. rewrite Rlt_bool_false by lra. rewrite VL.
    split; [finite | lra].
    - rewrite ltb_val by (auto; finite). rewrite Rlt_bool_false by lra. split; [exact Fx' | lra]. }
  destruct F0 as [Ff0 B0]. clearbody f0. clear Neg Vx Fx' X.
  assert (P51 : IZR (2^51) = pow2 51) by reflexivity.
  destruct (nearest_val f0 Ff0) as (n & Fn & Vn & Near).
  { rewrite <- P51. apply Rabs_le. lra. }
  set (nf := D.nearest f0) in *. clearbody nf. apply Rabs_le_inv in Near.
  assert (Nn : (-190976 <= n <= 0)%Z).
  { split; apply Z.lt_succ_r; unfold Z.succ; apply lt_IZR; rewrite ?plus_IZR; lra. }
  cbv zeta. set (f := (f0 - nf)%float).
  assert (Vf : fin f /\ Rabs (V f) <= pow2 (-1) /\ (n = 0%Z -> V f <= 0)).
  { assert (D : Rabs (V f0 - V nf) <= pow2 (-1)) by (rewrite Vn; simpl; apply Rabs_le; lra).
    destruct (sub_val f0 nf Ff0 Fn) as [Vs Fs]; [small|]. split; [exact Fs|].
    unfold f. rewrite Vs. split; [apply rnd_le; [lia | exact D]|].
    intros ->. rewrite <- rnd_0. apply rnd_mono. rewrite Vn. lra. }
  destruct Vf as (Ff & Bf & Zf). clearbody f.
  (* the row of the table *)
  destruct (exact_sum nf 190976 n 190976 0 Fn) as [Fs Vs];
    [finite | rewrite Vn; simpl; ring | rewrite Vr; simpl; ring | lia | lia |].
  destruct (Z.eq_dec n 0) as [E | Ne].
  - (* 0 itself: the entry 1 *)
    assert (S : (nf + 190976)%float = 190976%float).
    { apply same_value; [exact Fs | finite | | rewrite Vs, E; simpl; lra].
      rewrite Vs, E, Vr. simpl. ring. }
    rewrite S. change (D.nearest ((190976 - 127.5) * 0x1p-8))%float with 746%float.
    change (190976 - 746 * 256)%float with 0%float. rewrite at_float_746.
    assert (One : D.at_float 0%float (nth 746 table []) 0 = 1%float).
    { apply andb_true_iff in G as [_ G]. destruct (nth 746 table []) as [|e es]; [easy|].
      cbn [D.at_float nth] in *. change (0 =? 0)%float with true. cbv iota.
      assert (Fe : fin e).
      { rewrite eqb_spec, <- !B2SF_Prim2B in G. unfold fin, B.
        assert (E1 : exists m k, B2SF (Prim2B 1) = S754_finite false m k)
          by (rewrite B2SF_Prim2B; now eexists; eexists; vm_compute).
        destruct E1 as (m & k & E1). rewrite E1 in G.
        destruct (Prim2B e) as [?|[]| |[] ? ? ?]; easy. }
      rewrite eqb_val, V_1 in G by (auto; finite).
      destruct (Req_bool_spec (V e) 1) as [Q|]; [|easy].
      apply same_value; [exact Fe | finite | rewrite V_1; exact Q | lra]. }
    rewrite One. apply last_step; auto; [finite | rewrite V_1; lra].
  - (* below it: an entry below 1 *)
    destruct (exact_difference (nf + 190976)%float 127.5 ((n + 190976) * 2) 255 (-1) Fs) as [Fd Vd];
      [finite | rewrite Vs, mult_IZR; simpl; lra | exact Vm | lia | lia |].
    assert (V8 : V 0x1p-8 = pow2 (-8)) by (value; simpl; lra).
    destruct (mul_val (nf + 190976 - 127.5)%float 0x1p-8 Fd) as [Vq Fq]; [finite | |].
    { rewrite Vd, V8, Rmult_assoc, <- bpow_plus. rewrite Rabs_mult, <- abs_IZR.
      rewrite (Rabs_pos_eq (pow2 _)) by apply bpow_ge_0.
      apply Rle_trans with (pow2 53 * pow2 (-1 + -8)).
      - apply Rmult_le_compat_r; [apply bpow_ge_0|]. change (pow2 53) with (IZR (2^53)).
        apply IZR_le. lia.
      - rewrite <- bpow_plus. apply up. lia. }
    rewrite Vd, V8, Rmult_assoc, <- bpow_plus in Vq.
    rewrite rnd_fix in Vq by (apply int_format; lia).
    set (m := ((n + 190976) * 2 - 255)%Z) in *.
    assert (Bm : -255 <= IZR m <= 381695) by (split; apply IZR_le; lia).
    assert (P9 : pow2 (-1 + -8) = 1 / 512) by (simpl; lra). rewrite P9 in Vq.
    destruct (nearest_val _ Fq) as (i & Fi & Vi & Ni).
    { rewrite Vq, <- P51. apply Rabs_le. lra. }
    rewrite Vq in Ni. apply Rabs_le_inv in Ni.
    assert (Ri : (0 <= i <= 745)%Z).
    { split; apply Z.lt_succ_r; unfold Z.succ; apply lt_IZR; rewrite ?plus_IZR; lra. }
    set (i' := D.nearest _) in *.
    destruct (at_float_in [] table i' i 746 Fi Vi) as [I | I]; [lia | lia | |].
    + destruct (unit_entry table _ (nf + 190976 - i' *
      256)%float G (or_introl I)) as (F1 & B1 & L1).
      now apply last_step; auto.
    + rewrite I. destruct (unit_entry table _ (nf + 190976 - i' * 256)%float G (or_intror eq_refl))
        as (F1 & B1 & L1).
      now apply last_step; auto.
Qed.

(* So the exponentials of a row of scores pass the check that `attend` makes of them. *)
Theorem softmax_in_unit table scores : good_table table = true ->
  Forall (fun s => fin s /\ Rabs (V s) <= pow2 800) scores ->
  forallb D.in_unit (map (fun s => D.exp table (s - D.largest scores)%float) scores) = true.
Proof.
  intros G H. rewrite Forall_forall in H. apply forallb_forall. intros e I.
  apply in_map_iff in I as (s & <- & I).
  destruct (largest_val scores) as [Im Lm]; [now intros -> | apply Forall_forall; apply H |].
  destruct (H s I) as [Fs Bs], (H _ Im) as [Fm Bm]. specialize (Lm s I).
  apply Rabs_le_inv in Bs, Bm.
  assert (P : pow2 801 = 2 * pow2 800).
  { change 801%Z with (1 + 800)%Z. rewrite bpow_plus. simpl (bpow radix2 1). lra. }
  assert (Q : Rabs (V s - V (D.largest scores)) <= pow2 801) by (apply Rabs_le; lra).
  destruct (sub_val s (D.largest scores) Fs Fm) as [Vd Fd]; [small|].
  apply exp_in_unit; [exact G | exact Fd |]. rewrite Vd. split.
  - pose proof (rnd_le _ 801 ltac:(lia) Q) as R. apply Rabs_le_inv in R.
    assert (pow2 801 <= pow2 900) by (apply up; lia). lra.
  - rewrite <- rnd_0. apply rnd_mono. lra.
Qed.

Print Assumptions exp_in_unit.
Print Assumptions softmax_in_unit.
