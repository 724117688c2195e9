(* Rows.v -- rows on the grids that the decoder puts them on, of their L1 norm or of their largest
   number, rows of zeros included: dot products of two such are exact.  No hypothesis about grids,
   bounds or rounding is left. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Total GridOrder Narrow.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.
#[local] Opaque one.

(** * Rows of zeros *)
Lemma zeros_or xs : (forall x, In x xs -> V x = 0) \/ exists x, In x xs /\ V x <> 0.
Proof.
  induction xs as [|x xs [H | (y & I & N)]]; [now left| |right; exists y; simpl; auto].
  destruct (Req_dec (V x) 0) as [Z | N]; [left | right; exists x; simpl; auto].
  intros y [<- | I]; auto.
Qed.
Lemma map_repeat {A B} (f : A -> B) x n : map f (repeat x n) = repeat (f x) n.
Proof. induction n; simpl; congruence. Qed.
Lemma zeros_abs xs : Forall fin xs -> (forall x, In x xs -> V x = 0) ->
  map abs xs = repeat 0%float (length xs).
Proof.
  induction 1 as [|x xs Fx _ IH]; intros Z; simpl; [reflexivity|]. f_equal.
  - now destruct (V_zero x Fx (Z x (or_introl eq_refl))) as [-> | ->].
  - apply IH. intros y I. apply Z. now right.
Qed.
Lemma largest_zeros n : D.largest (repeat 0%float (S n)) = 0%float.
Proof.
  unfold D.largest. simpl. change (neg_infinity <? 0)%float with true. cbv iota.
  induction n; simpl; [reflexivity|]. change (0 <? 0)%float with false. cbv iota. exact IHn.
Qed.
Lemma top_zeros xs : xs <> [] -> Forall fin xs -> (forall x, In x xs -> V x = 0) ->
  D.top xs = 0%float.
Proof.
  intros Ne Fi Z. unfold D.top. rewrite (zeros_abs xs Fi Z). destruct xs as [|x xs]; [easy|].
  apply largest_zeros.
Qed.

(** * Grids of rows of zeros, and that all machines find the same grid *)
Theorem zero_power z : fin z -> V z = 0 -> D.power_below z = 0%float.
Proof. intros F Z. now destruct (V_zero z F Z) as [-> | ->]. Qed.
Lemma sum_zeros M n : orderly M -> fin (D.sum M (repeat 0%float n)) /\
  V (D.sum M (repeat 0%float n)) = 0.
Proof.
  intros O. destruct (sum_val M 0 (repeat 0%float n) O) as [F E]; [lia | | |].
  - apply Forall_forall. intros x I. apply repeat_spec in I as ->. finite.
  - rewrite map_repeat, V_0, map_repeat. split; unfold sumabs, prods; rewrite map_repeat; simpl.
    + apply Forall_forall. intros x I. apply repeat_spec in I as ->. rewrite Rmult_0_l.
    apply on_grid_0.
    + rewrite map_repeat, Rmult_0_l, Rabs_R0. pose proof (bpow_ge_0 radix2 53).
      enough (E : sum (repeat 0 n) = 0) by (simpl in *; lra). induction n; simpl; lra.
  - split; [exact F|]. rewrite E, map_repeat, V_0. clear. induction n; simpl; lra.
Qed.
Lemma total_zeros M n : orderly M ->
  D.total M (repeat 0%float (S n)) = 0%float \/ D.total M (repeat 0%float (S n)) = (-0)%float.
Proof.
  intros O. unfold D.total. rewrite largest_zeros, map2_map, !map_repeat.
  set (h := D.round 0 _). assert (H : h = 0%float) by now vm_compute. rewrite H.
  set (l := D.round _ _). assert (L : l = 0%float) by now vm_compute. rewrite L.
  destruct (sum_zeros M (S n) O) as [F E].
  destruct (V_zero _ F E) as [-> | ->]; [left | right]; now vm_compute.
Qed.
Definition plain (s : float) : Prop := (0 * s)%float = 0%float /\ (-0 * s)%float = (-0)%float.
Theorem grid_zeros M s xs : orderly M -> plain s -> xs <> [] -> Forall fin xs -> short xs ->
  (forall x, In x xs -> V x = 0) -> D.grid M s xs = 0%float.
Proof.
  intros O [P1 P2] Ne Fi K Z. unfold D.grid. cbv zeta. rewrite (zeros_abs xs Fi Z).
  destruct xs as [|x xs]; [easy|]. set (n := length (x :: xs)).
  assert (Z0 : forall y, In y (repeat 0%float n) -> y = 0%float).
  { intros y I. now apply repeat_spec in I. }
  assert (S0 : sum (map V (repeat 0%float n)) = 0).
  { rewrite map_repeat, V_0. clear. induction n; simpl; lra. }
  destruct (estimate_val M (repeat 0%float n) O) as [Fe Ae].
  { apply Forall_forall. intros y I. rewrite (Z0 y I). finite. }
  { intros y I. rewrite (Z0 y I), V_0. lra. }
  { unfold short. rewrite repeat_length. exact K. }
  { rewrite S0. apply bpow_ge_0. }
  assert (Ve : V (D.estimate M (repeat 0%float n)) = 0).
  { unfold approx in Ae. rewrite S0, Rmult_0_r, Rminus_0_r in Ae.
    destruct (Req_dec (V (D.estimate M (repeat 0%float n))) 0) as [Q | Q]; [exact Q|].
    apply Rabs_pos_lt in Q. lra. }
  assert (T : forall b : bool, ((if b then D.power_below (D.total M (repeat 0%float n) *
    s) else 0) * 2)%float = 0%float).
  { intros []; [|now vm_compute]. unfold n. simpl length.
    destruct (total_zeros M (length xs) O) as [-> | ->]; rewrite ?P1, ?P2; now vm_compute. }
  destruct (V_zero _ Fe Ve) as [-> | ->]; rewrite ?P1, ?P2;
    [|change (D.power_below (-0)) with 0%float];
    try change (D.power_below 0) with 0%float.
  - set (b := (_ || _)%bool). exact (T b).
  - set (b := (_ || _)%bool). exact (T b).
Qed.

Theorem grid_same M N bits s xs : orderly M -> orderly N -> (29 <= bits <= 50)%Z -> fin s ->
  V s = Grids.scale bits -> plain s -> Forall moderate xs -> short xs -> xs <> [] ->
  D.grid M s xs = D.grid N s xs.
Proof.
  intros OM ON Hb Fs Vs P Mo K Ne. pose proof (moderate_fin xs Mo) as Fi.
  destruct (zeros_or xs) as [Z | Nz]; [now rewrite !grid_zeros|].
  destruct (grid_val M bits s xs OM Hb Fs Vs Mo Nz K) as (u & Vu & Eu & Fu & _).
  destruct (grid_val N bits s xs ON Hb Fs Vs Mo Nz K) as (v & Vv & Ev & Fv & _).
  apply same_value; auto; [congruence|]. rewrite Vu. pose proof (bpow_gt_0 radix2 u). lra.
Qed.

(** * A row put on the grid of its L1 norm, or of its largest number *)
Lemma near_map g u xs : fin g -> V g = pow2 u -> (-1074 <= u <= 900)%Z -> Forall fin xs ->
  (forall x, In x xs -> Rabs (V x) <= pow2 (51 + u)) ->
  Forall fin (map (D.to_grid g) xs) /\ Forall2 (near u) (map V (map (D.to_grid g) xs)) (map V xs).
Proof.
  intros Fg Vg U. induction 1 as [|x xs Fx _ IH]; intros H; simpl; [split; constructor|].
  destruct (to_grid_val g x u Fg Fx Vg U (H x (or_introl eq_refl))) as (_ & F' & N').
  destruct IH as [I1 I2]; [intros y I; apply H; now right|]. split; constructor; auto.
Qed.
Lemma near_grid u rs xs : Forall2 (near u) rs xs -> Forall (on_grid u) rs.
Proof. induction 1 as [|r x rs xs [G _] _ IH]; constructor; auto. Qed.

(* Either everything is 0, or a row on a grid with a bound on its absolute sum. *)
Definition l1_row (A : Z) (xs : list float) : Prop := Forall fin xs /\ exists u,
  (-500 <= u <= 500)%Z /\
  Forall (on_grid u) (map V xs) /\ sumabs (map V xs) <= pow2 (A + u).
Definition top_row (A : Z) (xs : list float) : Prop := Forall fin xs /\ exists u,
  (-500 <= u <= 400)%Z /\
  Forall (fun x => on_grid u (V x) /\ Rabs (V x) <= pow2 (A + u)) xs.

Lemma zeros_grid xs : Forall fin xs -> (forall x, In x xs -> V x = 0) ->
  map (D.to_grid 0) xs = repeat 0%float (length xs).
Proof.
  induction 1 as [|x xs Fx _ IH]; intros Z; simpl; [reflexivity|].
  rewrite to_grid_zero, IH; auto; [intros y I; apply Z|apply Z]; simpl; auto.
Qed.
Lemma zeros_l1 A n : l1_row A (repeat 0%float n).
Proof.
  split; [apply Forall_forall; intros x I; apply repeat_spec in I as ->; finite|].
  exists 0%Z. split; [lia|]. rewrite map_repeat, V_0. split.
  - apply Forall_forall. intros x I. apply repeat_spec in I as ->. apply on_grid_0.
  - unfold sumabs. rewrite map_repeat, Rabs_R0. pose proof (bpow_ge_0 radix2 (A + 0)).
    enough (E : sum (repeat 0 n) = 0) by lra. induction n; simpl; lra.
Qed.
Lemma zeros_top A n : top_row A (repeat 0%float n).
Proof.
  split; [apply Forall_forall; intros x I; apply repeat_spec in I as ->; finite|].
  exists 0%Z. split; [lia|]. apply Forall_forall. intros x I. apply repeat_spec in I as ->.
  rewrite V_0, Rabs_R0. split; [apply on_grid_0 | apply bpow_ge_0].
Qed.

Theorem l1_val M bits scale xs : orderly M -> (29 <= bits <= 50)%Z -> fin scale ->
  V scale = Grids.scale bits ->
  plain scale -> Forall moderate xs -> short xs ->
  l1_row bits (map (D.to_grid (D.grid M scale xs)) xs).
Proof.
  intros O Hb Fs Vs Zs Mo K. pose proof (moderate_fin xs Mo) as Fi.
  destruct xs as [|x0 xs0] eqn:E; [exact (zeros_l1 bits 0)|]. rewrite <- E in *.
  destruct (zeros_or xs) as [Z | N].
  - rewrite grid_zeros by (auto; congruence). rewrite zeros_grid by auto. apply zeros_l1.
  - destruct (grid_val M bits scale xs O Hb Fs Vs Mo N K) as (u & Vg & _ & Fg & U & Each & Bound).
    destruct (near_map _ u xs Fg Vg ltac:(lia) Fi Each) as [F' N'].
    split; [exact F'|]. exists u. split; [exact U|].
    split; [exact (near_grid _ _ _ N') | now apply Bound].
Qed.

Lemma largest_grid c e ys : fin c -> V c = pow2 (- e) -> (0 <= e <= 50)%Z -> Forall moderate ys ->
  (forall y, In y ys -> 0 <= V y) -> (exists y, In y ys /\ V y <> 0) ->
  exists u, V (D.power_below (D.largest ys) * c)%float = pow2 u /\
  fin (D.power_below (D.largest ys) * c)%float /\ (-500 <= u <= 400)%Z /\
  forall y, In y ys -> V y <= pow2 (e + 1 + u).
Proof.
  intros Fc Vc He M Pos (y0 & I0 & N0).
  destruct (largest_val ys) as [Im Lm]; [intros ->; easy | now apply moderate_fin |].
  set (m := D.largest ys) in *. pose proof (proj1 (Forall_forall _ _) M m Im) as [Fm Bm].
  pose proof (Pos m Im) as Pm. rewrite Rabs_pos_eq in Bm by exact Pm.
  destruct Bm as [Bm | Bm]; [pose proof (Lm y0 I0); pose proof (Pos y0 I0); lra|].
  destruct (power_below_pow2 m Fm) as (k & Vp & Fp & _ & Km).
  { split; [eapply Rle_trans; [|apply Bm] | eapply Rle_trans; [apply Bm|]]; apply up; lia. }
  assert (Kb : (-401 <= k <= 400)%Z).
  { split; [apply Z.lt_succ_r, (lt_bpow radix2); unfold Z.succ | apply (le_bpow radix2)]; [|lra].
    apply Rle_lt_trans with (V m); [|lra]. eapply Rle_trans; [|apply Bm]. apply up. lia. }
  destruct (mul_val (D.power_below m) c Fp Fc) as [Vg Fg].
  { rewrite Vp, Vc, <- bpow_plus, Rabs_pos_eq by apply bpow_ge_0. apply up. lia. }
  exists (k + - e)%Z. split; [|split; [exact Fg|split; [lia|]]].
  - rewrite Vg, Vp, Vc, <- bpow_plus. unfold rnd. apply round_generic; [apply valid_rnd_N|].
    apply generic_format_bpow. unfold FLT_exp. lia.
  - intros y I. eapply Rle_trans; [now apply Lm|].
  replace (e + 1 + (k + - e))%Z with (k + 1)%Z by lia. lra.
Qed.

(* A row on the grid of its largest number; ys are the absolute values. *)
Theorem largest_row c e xs ys : fin c -> V c = pow2 (- e) -> (0 * c)%float = 0%float ->
  (0 <= e <= 49)%Z ->
  Forall fin xs -> Forall moderate ys -> map V ys = map Rabs (map V xs) ->
  let g := (D.power_below (D.largest ys) * c)%float in top_row (e + 1) (map (D.to_grid g) xs).
Proof.
  intros Fc Vc Zc He Fi Mo E g.
  assert (In2 : forall x, In x xs -> exists y, In y ys /\ V y = Rabs (V x)).
  { intros x I. assert (J : In (Rabs (V x)) (map V ys)) by (rewrite E; now apply in_map, in_map).
    apply in_map_iff in J as (y & <- & Iy). now exists y. }
  assert (Pos : forall y, In y ys -> 0 <= V y).
  { intros y I. assert (J : In (V y) (map V ys)) by now apply in_map.
    rewrite E in J. apply in_map_iff in J as (r & <- & _). apply Rabs_pos. }
  destruct (zeros_or ys) as [Z | Nz].
  - destruct xs as [|x0 xs0] eqn:Ex; [exact (zeros_top (e + 1) 0)|]. rewrite <- Ex in *.
    assert (G : g = 0%float).
    { assert (Ny : ys <> []) by (intros ->; rewrite Ex in E; easy).
      destruct (largest_val ys Ny (moderate_fin _ Mo)) as [Im _]. unfold g.
      rewrite zero_power; [exact Zc | | now apply Z].
      exact (proj1 (Forall_forall _ _) (moderate_fin _ Mo) _ Im). }
    rewrite G, zeros_grid; auto; [apply zeros_top|]. intros x I.
    destruct (In2 x I) as (y & Iy & Ey).
    rewrite (Z y Iy) in Ey. destruct (Req_dec (V x) 0) as [Q | Q]; [exact Q|].
    destruct (Rabs_no_R0 _ Q). now symmetry.
  - destruct (largest_grid c e ys Fc Vc) as (u & Vg & Fg & U & Each); auto; [lia|].
  fold g in Vg, Fg.
    assert (Ea : forall x, In x xs -> Rabs (V x) <= pow2 (e + 1 + u)).
    { intros x I. destruct (In2 x I) as (y & Iy & <-). now apply Each. }
    assert (Ev : forall x, In x xs -> fin (D.to_grid g x) /\ near u (V (D.to_grid g x)) (V x)).
    { intros x I. destruct (to_grid_val g x u Fg) as (_ & F' & N'); auto.
      - exact (proj1 (Forall_forall _ _) Fi x I).
      - lia.
      - eapply Rle_trans; [now apply Ea | apply up; lia]. }
    split; [apply Forall_map, Forall_forall; intros x I; now apply Ev|].
    exists u. split; [exact U|]. apply Forall_map, Forall_forall. intros x I.
    destruct (Ev x I) as [_ N']. split; [apply N'|].
    apply (near_bounded (e + 1) u _ (V x)); auto; lia.
Qed.
Lemma abs_moderate xs : Forall moderate xs -> Forall moderate (map abs xs).
Proof.
  intros Mo. apply Forall_map. eapply Forall_impl; [|exact Mo]. intros x [Fx Bx].
  destruct (abs_val x) as [Ea Fa]. split; [now apply Fa|]. rewrite Ea, Rabs_Rabsolu.
  destruct Bx as [Z | Bx]; [left; rewrite Z; apply Rabs_R0 | now right].
Qed.
Lemma abs_map xs : map V (map abs xs) = map Rabs (map V xs).
Proof. rewrite !map_map. apply map_ext. intros x. apply abs_val. Qed.
Theorem top_val c e xs : fin c -> V c = pow2 (- e) -> (0 * c)%float = 0%float -> (0 <= e <= 49)%Z ->
  Forall moderate xs -> top_row (e + 1) (map (D.to_grid (D.power_below (D.top xs) * c)) xs).
Proof.
  intros Fc Vc Zc He Mo. apply largest_row; auto;
    [now apply moderate_fin | now apply abs_moderate | apply abs_map].
Qed.

(** * Dot products of such rows *)
Lemma fst_pairs xs : forall ws, exists rest, map V xs = map fst (map real2 (pairs xs ws)) ++ rest.
Proof.
  induction xs as [|x xs IH]; intros [|w ws]; simpl; try now eexists.
  destruct (IH ws) as [rest ->]. now exists rest.
Qed.
Lemma snd_pairs xs : forall ws, exists rest, map V ws = map snd (map real2 (pairs xs ws)) ++ rest.
Proof.
  induction xs as [|x xs IH]; intros [|w ws]; simpl; try now eexists.
  destruct (IH ws) as [rest ->]. now exists rest.
Qed.
Lemma finite_pairs xs : forall ws, Forall fin xs -> Forall fin ws -> Forall finite2 (pairs xs ws).
Proof.
  induction xs as [|x xs IH]; intros [|w ws] Fx Fw; simpl; constructor.
  - split; [exact (Forall_inv Fx) | exact (Forall_inv Fw)].
  - exact (IH ws (Forall_inv_tail Fx) (Forall_inv_tail Fw)).
Qed.
Lemma rows_fit A C xs ws : (A + C <= 53)%Z -> l1_row A xs -> top_row C ws -> exists u,
  bfits u (pairs xs ws).
Proof.
  intros AC (Fx & u & U & Gx & Sx) (Fw & v & W & Gw). exists (u + v)%Z.
  split; [lia|]. split; [now apply finite_pairs|].
  destruct (fst_pairs xs ws) as [r1 E1], (snd_pairs xs ws) as [r2 E2].
  apply (fits_l1 A C); auto.
  - rewrite E1 in Gx. now apply Forall_app in Gx.
  - rewrite E1 in Sx. unfold sumabs in *. rewrite map_app, sum_app in Sx.
    pose proof (sumabs_nonneg r1). unfold sumabs in *. lra.
  - assert (G' : Forall (fun r => on_grid v r /\
    Rabs r <= pow2 (C + v)) (map V ws)) by now apply Forall_map.
    rewrite E2 in G'. now apply Forall_app in G'.
Qed.

Lemma bits32_val : fin D.bits32 /\ V D.bits32 = Grids.scale 32 /\ plain D.bits32.
Proof. split; [finite|]. split; [value; unfold Grids.scale; simpl; lra | split; now vm_compute].
Qed.
Lemma bits29_val : fin D.bits29 /\ V D.bits29 = Grids.scale 29 /\ plain D.bits29.
Proof. split; [finite|]. split; [value; unfold Grids.scale; simpl; lra | split; now vm_compute].
Qed.

Print Assumptions zero_power.
Print Assumptions grid_zeros.
Print Assumptions grid_same.
Print Assumptions l1_val.
Print Assumptions largest_row.
Print Assumptions top_val.
