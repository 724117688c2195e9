(* Replayed.v -- for Residual.v: the K/V that the program `residual` replays for one call are those
   of the full cache, as far as any layer sees; forgetting rows and going back keep it so.  Nothing
   is assumed. *)
From Coq Require Import List Arith Bool Lia.
From Minikv Require Import Markov Truncate Decoder Caches Agree.
Import ListNotations.

Section Proof.
Context {Tok V KV Out : Type}.
Variable emb : nat -> Tok -> V.
Variable head : V -> Out.
Variable blank : KV.
Variable budget : nat.
Variable chunk : option nat.
Notation store := (@store Tok V KV).

(* Does a layer see no further than its window? *)
Definition sees (w : option nat) (L : @layer V KV) : Prop :=
  match w with Some w => windowed w L | None => True end.
(* From where on the next layer's rows are right, where this layer's are from a on. *)
Definition beyond (w : option nat) (a : nat) : nat :=
  match a, w with 0, _ => 0 | _, Some w => a + (w - 1) | _, None => a end.
Lemma beyond_le w a : a <= beyond w a.
Proof. destruct a, w; simpl; lia. Qed.
Lemma beyond_mono w a b : a <= b -> beyond w a <= beyond w b.
Proof. destruct a, b, w; simpl; lia. Qed.

(** * One layer *)
Definition enough (w : option nat) (a p : nat) : Prop :=
  a = 0 \/ exists w', w = Some w' /\ a + (w' - 1) <= p.
Lemma reads_same w (L : @layer V KV) a p h ks ks' : sees w L -> enough w a p ->
  agree a 0 ks ks' -> p < length ks' -> g L p h (firstn (S p) ks) = g L p h (firstn (S p) ks').
Proof.
  intros W [-> | (w' & -> & E)] A P; [now rewrite (agree_all _ _ A)|].
  destruct A as [N H]. rewrite Nat.sub_0_r in N. apply W; rewrite !firstn_length, N; [reflexivity|].
  intros s B. destruct (Nat.le_gt_cases (S p) s) as [G | G]; [now rewrite !firstn_beyond|].
  rewrite !nth_firstn by lia. rewrite <- H by lia. f_equal. lia.
Qed.

(* K/V of all tokens: recomputed, kept and new. *)
Lemma kvs_agree (L : @layer V KV) a f e old rs hs new : f <= e -> f <= a -> e <= length hs ->
  agree a f old (firstn e hs) -> agree a e rs (kvs L hs) ->
  agree a 0 ((repeat blank f ++ mapi_from f (kv L) old) ++ rs ++ mapi_from (length hs) (kv L) new)
    (kvs L (hs ++ new)).
Proof.
  intros Fe Fa El [No Ho] [Nr Hr]. rewrite firstn_length in No. unfold kvs in Nr.
  rewrite mapi_length in Nr. rewrite kvs_app. unfold kvs. split.
  - rewrite !app_length, repeat_length, !mapi_length, No, Nr. lia.
  - intros i A _. rewrite Nat.sub_0_r.
    assert (Lo : length (repeat blank f ++ mapi_from f (kv L) old) = e).
    { rewrite app_length, repeat_length, mapi_length, No. lia. }
    destruct (Nat.lt_ge_cases i e) as [I | I].
    + rewrite nth_error_app1 by (rewrite Lo; exact I).
      rewrite nth_error_app2 by (rewrite repeat_length; lia). rewrite repeat_length.
      rewrite nth_error_app1 by (rewrite mapi_length; lia). rewrite !mapi_nth, Ho by lia.
      rewrite nth_firstn by exact I. cbn [Nat.add]. now replace (f + (i - f)) with i by lia.
    + rewrite nth_error_app2 by (rewrite Lo; exact I). rewrite Lo.
      destruct (Nat.lt_ge_cases i (length hs)) as [J | J].
      * rewrite !nth_error_app1 by (rewrite ?mapi_length; lia). now apply Hr.
      * rewrite !nth_error_app2 by (rewrite ?mapi_length; lia). rewrite Nr, mapi_length. f_equal.
        lia.
Qed.
(* The rows that come out of the layer, for the evicted tokens. *)
Lemma replay_agree w (L : @layer V KV) a f e p old hs : sees w L -> enough w a p -> p = length hs ->
  f <= e -> f <= a -> e <= length hs -> agree a f old (firstn e hs) ->
  agree (beyond w a) f (rows L f old (repeat blank f ++ mapi_from f (kv L) old))
    (firstn e (fwd L hs)).
Proof.
  intros W E -> Fe Fa El A. pose proof A as [No Ho]. rewrite firstn_length in No.
  assert (K : agree a 0 (repeat blank f ++ mapi_from f (kv L) old) (kvs L (firstn e hs))).
  { pose proof (kvs_agree L a f e old [] (firstn e hs) [] Fe Fa) as K.
    rewrite !app_nil_r in K. cbn [mapi_from app] in K. apply K.
    - rewrite firstn_length. lia.
    - rewrite firstn_firstn, Nat.min_id. exact A.
    - split; [unfold kvs; rewrite mapi_length, firstn_length; cbn [length]; lia|].
      intros i _ I. rewrite nth_beyond by (cbn [length]; lia). symmetry. apply nth_beyond.
      unfold kvs. rewrite mapi_length, firstn_length. lia. }
  rewrite fwd_firstn. unfold fwd, rows. split.
  - rewrite !mapi_length, firstn_length. lia.
  - intros i B F. rewrite !mapi_nth. cbn [Nat.add]. replace (f + (i - f)) with i by lia.
    pose proof (beyond_le w a) as Ba. rewrite Ho by lia.
    destruct (nth_error (firstn e hs) i) as [h|] eqn:Eh; cbn [option_map]; [|reflexivity]. f_equal.
    assert (Ie : i < length (kvs L (firstn e hs))).
    { unfold kvs. rewrite mapi_length. apply nth_error_Some. congruence. }
    apply (reads_same w L a i h _ _ W); [|exact K | exact Ie].
    destruct E as [-> | (w' & -> & E)]; [now left|]. destruct a as [|a]; [now left|].
    right. exists w'. split; [reflexivity|]. simpl in B. lia.
Qed.

(** * All layers *)
Definition keeps (s : store) (toks : list Tok) (hs : list V) : Prop :=
  match checkpoint s with
  | Nothing => True
  | Tokens ts => ts = skipn (first s) toks /\ hs = mapi emb toks
  | Rows rs => rs = skipn (first s) hs
  end.
Definition from_here (s : store) (a : nat) : nat := if keeps_rows s then first s else a.
Fixpoint all_hold (a : nat) (ls : list (@layer V KV)) (ws : list (option nat))
    (stores : list store) (toks : list Tok) (hs : list V) (e : nat) : Prop :=
  match ls, ws, stores with
  | L :: ls, w :: ws, s :: stores =>
      keeps s toks hs /\ agree (from_here s a) e (recent s) (kvs L hs) /\ sees w L /\
      all_hold (beyond w (from_here s a)) ls ws stores toks (fwd L hs) e
  | [], [], [] => True
  | _, _, _ => False
  end.
(* Tokens stand for the embedding, so only the first layer may keep them. *)
Definition no_tokens (s : store) : Prop :=
  match checkpoint s with Tokens _ => False | _ => True end.

Definition room (ws : list (option nat)) (stores : list store) (a p : nat) : Prop :=
  a = 0 \/ exists n, span ws stores = Some n /\ a + n <= p.
Lemma roomy_head w ws s stores p a : roomy (w :: ws) (s :: stores) p = true ->
  (keeps_rows s = false -> room (w :: ws) (s :: stores) a p) ->
  room (w :: ws) (s :: stores) (from_here s a) p /\ roomy ws stores p = true.
Proof.
  intros R H. cbn [roomy] in R. apply andb_true_iff in R as [R R']. split; [|exact R'].
  unfold from_here. destruct (keeps_rows s); [|now apply H]. cbn [negb orb] in R.
  apply orb_true_iff in R as [R | R]; [left; now apply Nat.eqb_eq|]. right.
  destruct (span _ _) as [n|]; [|easy]. exists n. split; [reflexivity | now apply Nat.leb_le].
Qed.
Lemma room_enough w ws s stores a p : room (w :: ws) (s :: stores) a p ->
  enough w a p /\ (carry_on stores = true -> room ws stores (beyond w a) p).
Proof.
  intros [-> | (n & S & L)]; [split; [now left | intros; now left]|].
  cbn [span] in S. destruct w as [w|]; [|easy]. split.
  - right. exists w. split; [reflexivity|].
    destruct (carry_on stores); [destruct (span ws stores); [|easy]|]; injection S as <-; lia.
  - intros C. rewrite C in S. destruct (span ws stores) as [n'|] eqn:E; [|easy].
    injection S as <-. destruct a as [|a]; [now left|]. right. exists n'. split; [exact E|].
    simpl. lia.
Qed.

Lemma roomy_first w ws (s : store) stores n : roomy (w :: ws) (s :: stores) n = true ->
  keeps_rows s = true -> first s <= n.
Proof.
  cbn [roomy]. intros R Q. rewrite Q in R. apply andb_true_iff in R as [R _]. cbn [negb orb] in R.
  apply orb_true_iff in R as [R | R]; [apply Nat.eqb_eq in R; lia|].
  destruct (span _ _); [apply Nat.leb_le in R; lia | easy].
Qed.

Lemma evicted_agree s e toks hs : keeps_rows s = true -> keeps s toks hs ->
  length hs = length toks ->
  e <= length hs -> agree (first s) (Nat.min (first s) e) (evicted_rows emb s e) (firstn e hs).
Proof.
  intros R K N E. unfold keeps, evicted_rows, keeps_rows in *.
  assert (G : forall rs, rs = skipn (first s) hs ->
    agree (first s) (Nat.min (first s) e) (firstn (e - first s) rs) (firstn e hs)).
  { intros rs ->. apply agree_firstn; [exact E | apply agree_skipn]. }
  destruct (checkpoint s) as [|ts|rs]; [easy | | now apply G]. destruct K as [-> ->].
  pose proof (skipn_mapi emb (first s) toks 0) as Q. cbn [Nat.add] in Q.
  rewrite <- mapi_firstn, <- Q. now apply G.
Qed.
Lemma grown_keeps s toks ts hs new : length hs = length toks ->
  (keeps_rows s = true -> first s <= length hs) ->
  keeps s toks hs -> new = mapi_from (length toks) emb ts \/ no_tokens s ->
  keeps {| checkpoint := grown (checkpoint s) ts new; first := first s; recent := [] |}
    (toks ++ ts) (hs ++ new).
Proof.
  intros N F K H. unfold keeps, no_tokens, keeps_rows in *. cbn [checkpoint first].
  destruct (checkpoint s) as [|o|o]; cbn [grown]; [exact I | |]; specialize (F eq_refl).
  - destruct K as [-> ->], H as [-> | []]. split; [|now rewrite mapi_app].
    rewrite skipn_app. replace (first s - length toks) with 0 by lia. reflexivity.
  - rewrite K, skipn_app. replace (first s - length hs) with 0 by lia. reflexivity.
Qed.
Definition same_shape (s s' : store) : Prop := keeps_rows s' = keeps_rows s /\ first s' = first s /\
  (no_tokens s -> no_tokens s').
Lemma same_span ws : forall stores stores', Forall2 same_shape stores stores' ->
  span ws stores' = span ws stores.
Proof.
  induction ws as [|w ws IH]; intros stores stores' F; [reflexivity|].
  destruct F as [|s s' l l' [H _] F]; [reflexivity|]. cbn [span].
  destruct w as [w|]; [|reflexivity].
  assert (C : carry_on l' = carry_on l).
  { destruct F as [|? ? ? ? [Q _] F]; [reflexivity|]. cbn [carry_on]. now rewrite Q. }
  rewrite C. now rewrite (IH l l' F).
Qed.
Lemma same_roomy ws n : forall stores stores', Forall2 same_shape stores stores' ->
  roomy ws stores' n = roomy ws stores n.
Proof.
  induction ws as [|w ws IH]; intros stores stores' F; [reflexivity|].
  destruct F as [|s s' l l' H F]; [reflexivity|].
  pose proof (same_span (w :: ws) _ _ (Forall2_cons _ _ H F)) as S. destruct H as (Q & R & _).
  cbn [roomy]. rewrite S, Q, R. now rewrite (IH l l' F).
Qed.

Lemma extend_is_extend ls : forall ws stores a e from replayed toks ts hs new,
  length hs = length toks -> length new = length ts -> e <= length hs ->
  all_hold a ls ws stores toks hs e -> roomy ws stores (length hs) = true ->
  (match stores with s :: _ => keeps_rows s = false ->
     room ws stores a (length hs) /\ from <= e /\ from <= a /\
     agree a from replayed (firstn e hs) | [] => True end) ->
  (match stores with s :: _ => new = mapi_from (length toks) emb ts \/ no_tokens s
   | [] => True end) -> Forall no_tokens (tl stores) ->
  let '(out, stores') := extend_residual emb blank budget ls stores (length hs) e from
                           replayed ts new in
  out = fst (extend ls (caches ls hs) (length hs) new) /\
  all_hold a ls ws stores' (toks ++ ts) (hs ++ new) (length hs + length new - budget) /\
  Forall2 same_shape stores stores'.
Proof.
  induction ls as [|L ls IH]; intros [|w ws] [|s stores] a e from replayed toks ts hs new
    N Nn El H R T Tk Nt; cbn [all_hold] in H; try easy.
  destruct H as (K & A & W & H). cbn [extend_residual extend caches tl] in *. cbv zeta.
  destruct (roomy_head w ws s stores (length hs) a R ltac:(intros Q; now apply T)) as [Rm R'].
  destruct (room_enough w ws s stores _ _ Rm) as [En Rn].
  pose proof (roomy_first _ _ _ _ _ R) as F0.
  set (from' := if keeps_rows s then Nat.min (first s) e else from).
  set (old := if keeps_rows s then evicted_rows emb s e else replayed).
  set (a' := from_here s a) in *.
  assert (Old : from' <= e /\ from' <= a' /\ agree a' from' old (firstn e hs)).
  { unfold from', old, a', from_here. destruct (keeps_rows s) eqn:Q.
    - split; [lia|]. split; [lia|]. now apply (evicted_agree s e toks).
    - destruct (T eq_refl) as (_ & T1 & T2 & T3). exact (conj T1 (conj T2 T3)). }
  destruct Old as (Fe & Fa & Ao).
  pose proof (kvs_agree L a' from' e old (recent s) hs new Fe Fa El Ao A) as Ak.
  set (old_kv := repeat blank from' ++ mapi_from from' (kv L) old) in *.
  set (ks := old_kv ++ recent s ++ mapi_from (length hs) (kv L) new) in *.
  assert (Lk : length ks = length hs + length new).
  { destruct Ak as [Nk _]. unfold kvs in Nk. rewrite mapi_length, app_length in Nk. lia. }
  assert (Rows_ : rows L (length hs) new ks = rows L (length hs) new (kvs L (hs ++ new))).
  { unfold rows. apply mapi_ext_from. intros i h I. apply (reads_same w L a' i h _ _ W); auto.
    - destruct En as [E | (w' & E & Le)]; [now left | right]. exists w'. split; [exact E | lia].
    - unfold kvs. rewrite mapi_length, app_length. lia. }
  rewrite Rows_, <- kvs_app. set (up := rows L (length hs) new (kvs L (hs ++ new))).
  set (carried := if carry_on stores then _ else _).
  assert (Lf : length (fwd L hs) = length hs) by apply fwd_length.
  assert (Lu : length up = length new) by apply mapi_length.
  specialize (IH ws stores (beyond w a') e from' carried toks ts (fwd L hs) up).
  rewrite Lf, Lu in IH. specialize (IH N Nn El H R').
  destruct (extend_residual emb blank budget ls stores (length hs) e from' carried ts up)
    as [out stores'] eqn:X.
  destruct (extend ls (caches ls (fwd L hs)) (length hs) up) as [out' cache'] eqn:Y.
  destruct IH as (I1 & I2 & I3); auto.
  - destruct stores as [|s' stores]; [exact I|]. intros Q.
    assert (C : carry_on (s' :: stores) = true) by (cbn [carry_on]; now rewrite Q).
    split; [now apply Rn|]. split; [exact Fe|]. split; [pose proof (beyond_le w a'); lia|].
    unfold carried. rewrite C. now apply (replay_agree w L a' from' e (length hs)).
  - destruct stores as [|s' stores]; [exact I|]. right. exact (Forall_inv Nt).
  - destruct stores as [|s' stores]; [constructor|]. exact (Forall_inv_tail Nt).
  - cbn [fst] in *. split; [exact I1|].
    set (s2 := {| checkpoint := grown (checkpoint s) ts new; first := first s;
      recent := skipn (length ks - budget) ks |}).
    assert (Sh : same_shape s s2).
    { unfold same_shape, keeps_rows, no_tokens, s2. cbn [checkpoint first].
      now destruct (checkpoint s). }
    assert (Fh : from_here s2 a = a') by (unfold from_here, a', from_here;
      destruct Sh as (-> & -> & _);
      reflexivity).
    split; [|now constructor]. cbn [all_hold]. rewrite Fh. split; [|split; [|split; [exact W|]]].
    + exact (grown_keeps s toks ts hs new N F0 K Tk).
    + cbn [recent s2]. rewrite Lk. destruct Ak as [Nk Hk]. split; [rewrite skipn_length; lia|].
      intros i B G. rewrite nth_skipn, <- Hk by lia. f_equal. lia.
    + rewrite fwd_app. exact I2.
Qed.

(** * Forgetting, and going back *)
Lemma forget_keeps size needed seen s toks hs : keeps s toks hs ->
  keeps (forget_rows size needed seen s) toks hs.
Proof.
  unfold keeps, forget_rows. destruct needed as [n|]; [|easy]. cbn [checkpoint first].
  destruct (checkpoint s) as [|ts|rs]; [easy | intros [-> H] | intros ->]; rewrite skipn_skipn;
    auto.
Qed.
Lemma forget_shape size ws : forall (stores : list store) seen,
  Forall2 (fun s s' => keeps_rows s' = keeps_rows s /\
  recent s' = recent s /\ first s <= first s' /\ (no_tokens s -> no_tokens s'))
  stores (forget size ws stores seen).
Proof.
  induction ws as [|w ws IH]; intros [|s stores] seen; cbn [forget]; try constructor; auto.
  - induction stores; constructor; auto.
  - destruct (keeps_rows s) eqn:Q; [|repeat split; auto].
    unfold forget_rows, keeps_rows, no_tokens in *. destruct (span _ _); [|repeat split; auto].
    cbn [checkpoint first recent]. destruct (checkpoint s); repeat split; auto; try easy; lia.
Qed.
Lemma forget_holds size ls : forall ws stores a b toks hs e seen, a <= b ->
  all_hold a ls ws stores toks hs e -> all_hold b ls ws (forget size ws stores seen) toks hs e.
Proof.
  induction ls as [|L ls IH]; intros [|w ws] [|s stores] a b toks hs e seen Ab H;
    cbn [all_hold] in H; try easy.
  destruct H as (K & A & W & H). pose proof (forget_shape size (w :: ws) (s :: stores) seen) as Sh.
  cbn [forget] in *. set (s' := if keeps_rows s then _ else s) in *.
  inversion_clear Sh as [|? ? ? ? (Q & E & F & _) _].
  assert (Le : from_here s a <= from_here s' b).
  { unfold from_here. rewrite Q. destruct (keeps_rows s); lia. }
  cbn [all_hold]. split; [|split; [|split; [exact W|]]].
  - unfold s'. destruct (keeps_rows s); [now apply forget_keeps | exact K].
  - rewrite E. now apply (agree_le (from_here s a)).
  - apply (IH ws stores (beyond w (from_here s a))); [now apply beyond_mono | exact H].
Qed.
Lemma forget_span size ws : forall (stores : list store) seen,
  span ws (forget size ws stores seen) = span ws stores.
Proof.
  induction ws as [|w ws IH]; intros [|s stores] seen; cbn [forget span]; auto.
  destruct w as [w|]; [|reflexivity].
  assert (C : carry_on (forget size ws stores seen) = carry_on stores).
  { pose proof (forget_shape size ws stores seen) as Sh. destruct Sh as [|? ? ? ? (Q & _) _];
      [reflexivity|]. cbn [carry_on]. now rewrite Q. }
  now rewrite C, IH.
Qed.
Lemma forget_roomy size ws : forall (stores : list store) seen, roomy ws stores seen = true ->
  roomy ws (forget size ws stores seen) seen = true.
Proof.
  induction ws as [|w ws IH]; intros [|s stores] seen R; cbn [forget roomy] in *; auto.
  apply andb_true_iff in R as [R R']. apply andb_true_iff. split; [|now apply IH].
  pose proof (forget_span size (w :: ws) (s :: stores) seen) as Sp. cbn [forget] in Sp. rewrite Sp.
  destruct (keeps_rows s) eqn:Q; [|now rewrite Q]. cbn [negb orb] in R. unfold forget_rows.
  destruct (span (w :: ws) (s :: stores)) as [n|] eqn:E; [|rewrite Q; exact R].
  apply orb_true_iff. cbn [first].
  assert (D : (seen - n - first s) / size * size <= seen - n - first s).
  { destruct size; [simpl; lia|]. rewrite Nat.mul_comm. apply Nat.mul_div_le. lia. }
  set (d := _ / size * size) in *. destruct (Nat.eq_dec d 0) as [-> | Nd].
  - rewrite Nat.add_0_r. apply orb_true_iff in R as [R | R]; [left | now right].
    rewrite R. apply orb_true_r.
  - right. apply Nat.leb_le. lia.
Qed.
Lemma roomy_le ws : forall (stores : list store) n m,
  n <= m -> roomy ws stores n = true -> roomy ws stores m = true.
Proof.
  induction ws as [|w ws IH]; intros [|s stores] n m L R; cbn [roomy] in *; auto.
  apply andb_true_iff in R as [R R']. apply andb_true_iff. split; [|now apply (IH stores n)].
  apply orb_true_iff in R as [R | R]; apply orb_true_iff; [now left | right].
  destruct (span _ _); [|easy]. apply Nat.leb_le in R. apply Nat.leb_le. lia.
Qed.
Lemma firstn_skipn_back {A} n k (l : list A) : k <= n ->
  firstn (n - k) (skipn k l) = skipn k (firstn n l).
Proof. intros L. rewrite firstn_skipn_comm. do 2 f_equal. lia. Qed.
Lemma cut_holds n ls : forall ws stores a toks hs e, roomy ws stores n = true ->
  all_hold a ls ws stores toks hs e ->
  all_hold a ls ws (map (cut n e) stores) (firstn n toks) (firstn n hs) (Nat.min e n).
Proof.
  induction ls as [|L ls IH]; intros [|w ws] [|s stores] a toks hs e R H;
    cbn [all_hold] in H; try easy.
  destruct H as (K & A & W & H). pose proof (roomy_first _ _ _ _ _ R) as Rf.
  cbn [roomy] in R. apply andb_true_iff in R as [_ R]. cbn [map all_hold].
  assert (Fh : from_here (cut n e s) a = from_here s a).
  { unfold from_here, keeps_rows, cut. cbn [checkpoint first]. now destruct (checkpoint s). }
  rewrite Fh. split; [|split; [|split; [exact W|]]].
  - unfold keeps, cut, keeps_rows in *. cbn [checkpoint first].
    destruct (checkpoint s) as [|ts|rs]; [exact I | destruct K as [-> ->] | rewrite K].
    + split; [apply firstn_skipn_back; now apply Rf | now rewrite mapi_firstn].
    + apply firstn_skipn_back. now apply Rf.
  - cbn [cut recent]. rewrite <- kvs_firstn. destruct A as [Na Ha]. split.
    + rewrite !firstn_length, Na. lia.
    + intros i B G. destruct (Nat.le_gt_cases n i) as [J | J].
      * rewrite (firstn_beyond n) by exact J. apply firstn_beyond. lia.
      * replace (Nat.min e n) with e by lia. rewrite !nth_firstn by lia. apply Ha; lia.
  - rewrite <- fwd_firstn. now apply IH.
Qed.
Lemma cut_shape n e (stores : list store) : Forall2 same_shape stores (map (cut n e) stores).
Proof.
  induction stores as [|s stores IH]; cbn [map]; constructor; [|exact IH].
  unfold same_shape, keeps_rows, no_tokens, cut. cbn [checkpoint first].
  now destruct (checkpoint s).
Qed.

Lemma never_forgotten : forall ws (stores : list store) n, Forall (fun s => first s = 0) stores ->
  roomy ws stores n = true.
Proof.
  induction ws as [|w ws IH]; intros [|s stores] n F; cbn [roomy]; auto.
  inversion_clear F as [|? ? F0 F']. rewrite F0, orb_true_r. now apply IH.
Qed.
Lemma never_grown : forall ls (stores : list store) p e from replayed ts hs,
  Forall (fun s => first s = 0) stores -> Forall (fun s => first s = 0)
    (snd (extend_residual emb blank budget ls stores p e from replayed ts hs)).
Proof.
  induction ls as [|L ls IH]; intros [|s stores] p e from replayed ts hs F;
    cbn [extend_residual]; try constructor.
  inversion_clear F as [|? ? F0 F']. cbv zeta.
  match goal with |- context [extend_residual ?a ?b ?c ?d ?f ?g ?h ?i ?j ?k ?l] =>
    specialize (IH f g h i j k l F'); destruct (extend_residual a b c d f g h i j k l) end.
  now constructor.
Qed.

End Proof.
