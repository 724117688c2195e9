(* Decoder.v -- minikv's exact decoder, concretely: every operation, on binary64 numbers.

   Markov.v proves its theorems for an arbitrary decoder.  This file defines one: the five families
   of minikv/config.py under `Exact` arithmetic, by the operations of the Python code and no others,
   which are + - * / sqrt abs and comparisons of Coq's primitive floats, IEEE 754's (FloatAxioms).
   Extracted.v turns it into OCaml, whose logits have the bits of the Python code; Micro.v has Coq
   itself run it.  It proves nothing and assumes nothing; Concrete.v has T1 to T11 for it.

   It is written one row at a time, so row locality (T6) is not assumed but visible.  How a sum is
   taken is left to a `machine`; Machines.v proves that no two machines that add the same terms, in
   whatever order, differ in a bit.  `loops` adds from left to right.  Where Python would raise
   ArithmeticRangeError, or relies on K and V being settled, this checks, and answers [nan];
   Softmax.v proves that attention's checks are true, and Finite.v of which models all are. *)
From Coq Require Import List Bool PrimFloat.
From Minikv Require Import Markov.
Import ListNotations.
#[local] Open Scope float_scope.

Notation row := (list float).
Notation matrix := (list row).

Fixpoint map2 {A B C} (f : A -> B -> C) (xs : list A) (ys : list B) : list C :=
  match xs, ys with x :: xs, y :: ys => f x y :: map2 f xs ys | _, _ => [] end.
(* n pieces of a list, each of a size: a reshape *)
Fixpoint pieces {A} (n size : nat) (xs : list A) : list (list A) :=
  match n with O => [] | S n => firstn size xs :: pieces n size (skipn size xs) end.
Fixpoint of_nat (n : nat) : float := match n with O => 0 | S n => of_nat n + 1 end.
(* xs[i], for an i that is a whole number *)
Fixpoint at_float {A} (d : A) (xs : list A) (i : float) : A :=
  match xs with [] => d | x :: xs => if i =? 0 then x else at_float d xs (i - 1) end.

(** * arithmetic/exact.py: grids *)
Definition ROUND : float := 0x1.8p52.
Definition power_below (y : float) : float :=
  let q := y * 0x1.0000000000001p52 in q - q * 0x1.fffffffffffffp-1.
Definition round (x shift : float) : float := x + shift - shift.
Definition to_grid (g x : float) : float := round x (g * ROUND).
Definition nearest (x : float) : float := round x ROUND.              (* to an integer *)
Definition clip (low high x : float) : float :=
  let x := if x <? low then low else x in if high <? x then high else x.

(* float64 -> float32, ties to even: the grid is the last place of 24 bits, or 2^-149. *)
Definition narrow (x : float) : float :=
  if x =? 0 then x else
  let size := abs x in
  if 0x1p128 <=? size then (if x <? 0 then neg_infinity else infinity) else
  let g := power_below size * 0x1p-23 in
  let y := to_grid (if g <? 0x1p-149 then 0x1p-149 else g) size in
  let y := if 0x1p128 <=? y then infinity else y in
  if x <? 0 then - y else y.

(** * Sums *)
Record machine := {
  sum : row -> float; dot : row -> row -> float;    (* of terms on a grid: exact in any order *)
  estimate : row -> float;                          (* NumpyExact.row_sum: it may round *)
  doubts : row -> bool }.                           (* does another row ask `total`? *)
Fixpoint dot_from (acc : float) (xs ws : row) : float :=
  match xs, ws with x :: xs, w :: ws => dot_from (acc + x * w) xs ws | _, _ => acc end.
Definition loop_sum (xs : row) : float := fold_left add xs 0.
Definition loops : machine :=
  {| sum := loop_sum; dot := dot_from 0; estimate := loop_sum; doubts _ := false |}.

Definition largest (xs : row) : float :=
  fold_left (fun m x => if m <? x then x else m) xs neg_infinity.
Definition top (xs : row) : float := largest (map abs xs).

(** * Checks *)
Definition within (low high x : float) : bool :=
  (x =? 0) || ((low <=? abs x) && (abs x <=? high)).
Definition tame : float -> bool := within 0x1p-149 0x1.fffffep127.     (* what a float32 holds *)
Definition wide : float -> bool := within 0x1p-400 0x1p400.
Definition longest : float := 0x1p20.
Definition no_longer (n : float) {A} (xs : list A) : bool := of_nat (length xs) <=? n.
Definition in_unit (x : float) : bool := (0 <=? x) && (x <=? 1).
Definition raise : row := [nan].

Definition settled (x : row) : bool :=
  let g := power_below (top x) * 0x1p-23 in forallb (fun x => tame x && (to_grid g x =? x)) x.
Definition settle (x : row) : row :=                                  (* Exact.settle *)
  let g := power_below (top x) * 0x1p-23 in map (fun x => narrow (to_grid g x)) x.
Definition weight (w : row) : row :=                                  (* Exact.weight *)
  map (to_grid (power_below (top w) * 0x1p-20)) w.

(** * arithmetic/elementary.py *)
Definition exp (table : matrix) (x : float) : float :=                (* table: exp(n/256) *)
  let f := clip (-190976) 0x1.62e4395810625p+17 (x * 256) in
  let n := nearest f in
  let f := f - n in
  let i := nearest ((n + 190976 - 127.5) * 0x1p-8) in
  let power := at_float 0 (at_float [] table i) (n + 190976 - i * 256) in
  let p := ((f * 0x1.5555555555555p-37 + 0x1.55555aaaaaaaap-27) * f + 0x1p-17) * f in
  (p + 0x1.ffffffffffeabp-9) * f * power + power.

Definition half_pi : row :=
  [0x1.921fb544p+0; 0x1.0b4611a6p-34; 0x1.3198a2ep-69; 0x1.b839a252049c1p-104].
Definition sin_series : row :=
  [0x1.952c77030ad4ap-49; -0x1.ae7f3e733b81fp-41; 0x1.6124613a86d09p-33;
   -0x1.ae64567f544e4p-26; 0x1.71de3a556c734p-19; -0x1.a01a01a01a01ap-13;
   0x1.1111111111111p-7; -0x1.5555555555555p-3].
Definition cos_series : row :=
  [-0x1.6827863b97d97p-53; 0x1.ae7f3e733b81fp-45; -0x1.93974a8c07c9dp-37;
   0x1.1eed8eff8d898p-29; -0x1.27e4fb7789f5cp-22; 0x1.a01a01a01a01ap-16;
   -0x1.6c16c16c16c17p-10; 0x1.5555555555555p-5].
Definition quarter_turns (x : float) : float * float * float :=
  let n := nearest (x * 0x1.45f306dc9c883p-1) in
  let r := fold_left (fun r part => r - n * part) half_pi x in
  let square := r * r in
  let series := fold_left (fun s c => (s + c) * square) in
  let s := series sin_series (0 * square) in
  let c := series cos_series (0 * square) in
  (n - 4 * nearest (n * 0.25 - 0.375), s * r + r, (c - 0.5) * square + 1).
Definition sin (x : float) : float :=
  let '(turn, s, c) := quarter_turns x in
  let y := if (turn =? 1) || (turn =? 3) then c else s in if 2 <=? turn then - y else y.
Definition cos (x : float) : float :=
  let '(turn, s, c) := quarter_turns x in
  let y := if (turn =? 1) || (turn =? 3) then s else c in
  if (turn =? 1) || (turn =? 2) then - y else y.

(** * config.py and layers.py: what is known before the tokens are *)
Inductive activation := silu | gelu_pytorch_tanh.
Record config := {
  groups : nat; shared : nat; head_dim : nat;       (* G, R = H / G, d *)
  rms_norm_eps : float; query_pre_attn_scalar : float; hidden_act : activation;
  norm_offset : float; embedding_scale : option float;
  context : float; pattern_grid : float;            (* 2^-denominator_bits *)
  exp_table : matrix }.                             (* exp_table(), 256 a row *)

(* Under Hugging Face's names; None for what a family lacks, or a layer that sees everything. *)
Record block := {
  window : option nat;                              (* how many positions a token sees *)
  frequencies : row;                                (* rope_frequencies, (d/2,) *)
  input_layernorm : row;
  q_proj : matrix; k_proj : matrix; v_proj : matrix; o_proj : matrix;
  q_bias : option row; k_bias : option row; v_bias : option row;
  q_norm : option row; k_norm : option row;
  post_attention_layernorm : option row; pre_mlp_layernorm : row;
  gate_proj : matrix; up_proj : matrix; down_proj : matrix;
  post_feedforward_layernorm : option row }.

Definition rope (frequencies : row) (p : nat) (x : row) : row :=
  let angles := map (fun f => narrow (of_nat p * f)) frequencies in
  let cosines := map cos angles ++ map cos angles in
  let sines := map (fun a => - sin a) angles ++ map sin angles in
  let half := length angles in
  let turned := map2 mul (skipn half x ++ firstn half x) sines in
  map narrow (map2 add turned (map2 mul x cosines)).
Definition gated (c : config) (gate up : float) : float :=
  let y := match hidden_act c with
    | silu => gate
    | gelu_pytorch_tanh =>
        (gate * gate * 0x1.6e4e26d4801f7p-5 + 1) * gate * 0x1.9884533d43651p+0
    end in
  narrow (gate / (exp (exp_table c) (- y) + 1) * up).
Definition add_rows (x y : row) : row := map2 (fun x y => narrow (x + y)) x y.    (* float32 *)
Fixpoint columns (n : nat) (rows : matrix) : matrix :=
  match n with O => [] | S n => map (hd 0) rows :: columns n (map (@tl float) rows) end.

Section Layers.
Variable M : machine.

(** * arithmetic/exact.py and base.py: the operations *)
Definition total (size : row) : float :=                              (* Exact.total *)
  let shift := power_below (largest size) * (0x1p-30 * ROUND) in
  let high := map (fun x => round x shift) size in
  let low := map2 (fun x h => round (x - h) (shift * 0x1p-31)) size high in
  sum M high + sum M low.
Definition grid (scale : float) (xs : row) : float :=                 (* Exact.grid *)
  let size := map abs xs in
  let target := estimate M size * scale in
  let power := power_below target in
  let close := 0x1.fffffff0p-2 * power <? abs (target - 1.5 * power) in
  (if close || doubts M xs then power_below (total size * scale) else power) * 2.
Definition bits32 : float := 0x1.008p-32.                             (* (1 + 2^-9) 2^-bits *)
Definition bits29 : float := 0x1.008p-29.

Definition linear (ws : matrix) (x : row) : row :=
  if forallb tame x && no_longer longest x then
    let x := map (to_grid (grid bits32 x)) x in map (fun w => narrow (dot M x w) + 0) ws
  else raise.
Definition mean_square (x : row) : float :=
  let square := map (fun x => x * x) x in
  if forallb wide square && no_longer longest x then
    let g := power_below (largest square) * 0x1p-32 in
    sum M (map (to_grid g) square) / of_nat (length x)
  else nan.

Variable c : config.

Definition rms_norm (w : option row) (x : row) : row :=
  match w with
  | None => x
  | Some w =>
      let scale := sqrt (mean_square x + rms_norm_eps c) in
      map2 (fun x w => narrow (x / scale * w)) x w
  end.

(* One query over the keys and values that it sees, one K/V head of them: Exact.scores, softmax and
   weighted_sum.  The first + 0 is not Python's, where a zero score may be -0.0: what follows cannot
   tell. *)
Definition attend (q : row) (ks vs : list row) : row :=
  let q := map (fun x => x * (1 / sqrt (query_pre_attn_scalar c))) q in
  if negb (forallb wide q && no_longer longest q && forallb settled ks && forallb settled vs
           && no_longer (context c) ks) then raise else
  let q := map (to_grid (grid bits29 q)) q in
  let scores := map (fun k => dot M q k + 0) ks in
  let m := largest scores in
  let e := map (fun s => exp (exp_table c) (s - m)) scores in
  if negb (forallb in_unit e) then raise else
  let e := map (to_grid (pattern_grid c)) e in
  let denominator := sum M e in
  if negb (0 <? denominator) then raise else
  let powers := map (fun v => power_below (clip 0x1p-149 0x1.fffffep127 (top v))) vs in
  let pattern := map2 (fun e power => e / denominator * power) e powers in
  if negb (forallb wide pattern && no_longer longest pattern) then raise else
  let g := grid bits29 pattern in
  let pattern := map2 (fun p power => to_grid g p * (1 / power)) pattern powers in
  map (fun column => narrow (dot M pattern column) + 0) (columns (head_dim c) vs).

(** * decoder.py and projection.py: a block as a layer of Markov.v *)
Definition kv_entry : Type := list (row * row).     (* K and V of each group *)

Definition project (ws : matrix) (bias : option row) (x : row) : row :=
  match bias with None => linear ws x | Some b => add_rows (linear ws x) b end.

Definition kv_from_residual (b : block) (p : nat) (h : row) : kv_entry :=
  let x := rms_norm (Some (input_layernorm b)) h in
  let ks := pieces (groups c) (head_dim c) (project (k_proj b) (k_bias b) x) in
  let vs := pieces (groups c) (head_dim c) (project (v_proj b) (v_bias b) x) in
  map2 (fun k v => (settle (rope (frequencies b) p (rms_norm (k_norm b) k)), settle v)) ks vs.

Definition visible (w : option nat) (seen : list kv_entry) : list kv_entry :=
  match w with None => seen | Some w => skipn (length seen - w) seen end.

(* What a block computes for a row, under TransformerLens's names. *)
Record activations := {
  ln1_normalized : row; attn_q : row; attn_rot_q : row; attn_z : row; attn_out : row;
  resid_mid : row; ln2_normalized : row; mlp_pre : row; mlp_pre_linear : row; mlp_post : row;
  mlp_out : row; resid_post : row }.

Definition block_activations (b : block) (p : nat) (h : row) (seen : list kv_entry) :=
  let seen := visible (window b) seen in
  let ln1 := rms_norm (Some (input_layernorm b)) h in
  let q := project (q_proj b) (q_bias b) ln1 in
  let heads := pieces (groups c * shared c) (head_dim c) q in
  let rot_q := map (fun q => rope (frequencies b) p (rms_norm (q_norm b) q)) heads in
  let one_group j qs :=
    let kvs := map (fun e => nth j e ([], [])) seen in
    concat (map (fun q => attend q (map fst kvs) (map snd kvs)) qs) in
  let z := concat (map2 one_group (seq 0 (groups c)) (pieces (groups c) (shared c) rot_q)) in
  let attn_out := rms_norm (post_attention_layernorm b) (linear (o_proj b) z) in
  let mid := add_rows h attn_out in
  let ln2 := rms_norm (Some (pre_mlp_layernorm b)) mid in
  let gate := linear (gate_proj b) ln2 in
  let up := linear (up_proj b) ln2 in
  let post := map2 (gated c) gate up in
  let out := rms_norm (post_feedforward_layernorm b) (linear (down_proj b) post) in
  {| ln1_normalized := ln1; attn_q := q; attn_rot_q := concat rot_q; attn_z := z;
     attn_out := attn_out; resid_mid := mid; ln2_normalized := ln2; mlp_pre := gate;
     mlp_pre_linear := up; mlp_post := post; mlp_out := out; resid_post := add_rows mid out |}.
Definition block_rest (b : block) (p : nat) (h : row) (seen : list kv_entry) : row :=
  resid_post (block_activations b p h seen).

Definition layer_of (b : block) : @layer row kv_entry :=
  {| kv := kv_from_residual b; g := block_rest b |}.
End Layers.

(** * build.py: `build`, and the whole decoder *)
Record model := {
  conf : config; embed_tokens : matrix; blocks : list block; norm : row; lm_head : matrix }.

(* From the tensors of the file (float32) to weights on their grids, and norms with their offset. *)
Definition prepare (m : matrix) : matrix := map weight m.
Definition norm_weight (offset : float) (w : row) : row :=
  if offset =? 0 then w else map (fun x => x + offset) w.
Definition prepare_block (c : config) (b : block) : block :=
  let norm := norm_weight (norm_offset c) in
  {| window := window b; frequencies := frequencies b;
     input_layernorm := norm (input_layernorm b);
     q_proj := prepare (q_proj b); k_proj := prepare (k_proj b); v_proj := prepare (v_proj b);
     o_proj := prepare (o_proj b); q_bias := q_bias b; k_bias := k_bias b; v_bias := v_bias b;
     q_norm := option_map norm (q_norm b); k_norm := option_map norm (k_norm b);
     post_attention_layernorm := option_map norm (post_attention_layernorm b);
     pre_mlp_layernorm := norm (pre_mlp_layernorm b);
     gate_proj := prepare (gate_proj b); up_proj := prepare (up_proj b);
     down_proj := prepare (down_proj b);
     post_feedforward_layernorm := option_map norm (post_feedforward_layernorm b) |}.
Definition build (c : config) (embedding : matrix) (bs : list block) (n : row) (head : matrix) :=
  {| conf := c; embed_tokens := embedding; blocks := map (prepare_block c) bs;
     norm := norm_weight (norm_offset c) n; lm_head := prepare head |}.

Section Model.
Variable M : machine.
Variable m : model.
Definition embed (_ : nat) (token : nat) : row :=
  let x := nth token (embed_tokens m) [] in
  match embedding_scale (conf m) with
  | None => x
  | Some scale => map (fun x => narrow (x * scale)) x
  end.
Definition unembed (h : row) : row := linear M (lm_head m) (rms_norm M (conf m) (Some (norm m)) h).
Definition layers : list layer := map (layer_of M (conf m)) (blocks m).

Definition logits (tokens : list nat) : list row := outputs embed unembed layers tokens.
Definition decode_cached (chunks : list (list nat)) : list row * list (list kv_entry) :=
  decode embed unembed layers chunks.

(* K/V and activations of every block, for finding where another program first differs. *)
Fixpoint trace_from (bs : list block) (hs : list row) : list (list kv_entry * list activations) :=
  match bs with
  | [] => []
  | b :: bs =>
      let ks := kvs (layer_of M (conf m) b) hs in
      let acts := mapi (fun i h => block_activations M (conf m) b i h (firstn (S i) ks)) hs in
      (ks, acts) :: trace_from bs (map resid_post acts)
  end.
Definition trace (tokens : list nat) := trace_from (blocks m) (mapi embed tokens).
End Model.
