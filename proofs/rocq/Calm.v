(* Calm.v -- which models never make a check of Decoder.v fire: a computation on the numbers of a
   model, `calm`, which proofs/extracted runs on real weights.  Finite.v proves that it suffices.

   Weights up to 2^6, weights of norms up to 2^12, biases up to 2^40, an embedding up to 2^80, rows
   of up to 2^16 numbers, 2^10 blocks: the stream then stays below 2^127, since each block
   normalises what it reads and adds at most 4097 * 2^104 to it.  It assumes nothing. *)
From Coq Require Import List Bool PrimFloat.
From Minikv Require Import Decoder.
Import ListNotations.
#[local] Open Scope float_scope.

(** * The table of exp
   The largest entry below that of 0, exp(-1/256), is at most 1 - 2^-8 + 2^-17. *)
Definition below_one : float := 0x1.fe01p-1.
Definition good_table (table : matrix) : bool :=
  forallb (forallb (fun e => (0 <=? e) && (e <=? below_one))) (firstn 746 table)
  && (nth 0 (nth 746 table []) 0 =? 1).
Definition greatest : float := 0x1.fffffffffffffp1023.
Definition sound_table (table : matrix) : bool :=
  forallb (forallb (fun e => (0 <=? e) && (abs e <=? greatest))) table.

(** * A model *)
Definition upto (r : float) (xs : row) : bool := forallb (fun x => abs x <=? r) xs.
Definition upto_if (r : float) (xs : option row) : bool :=
  match xs with None => true | Some xs => upto r xs end.
Definition between (x : float) : bool := (0x1p-100 <=? x) && (abs x <=? 0x1p100).
Definition weight_bound : float := 0x1p6.
Definition norm_bound : float := 0x1p12.
Definition bias_bound : float := 0x1p40.
Definition embedding_bound : float := 0x1p80.
Definition widest : float := 0x1p16.
Definition deepest : float := 0x1p10.
Definition few {A} (xs : list A) : bool := no_longer widest xs.
Definition calm_matrix (m : matrix) : bool := few m && forallb (upto weight_bound) m.
Definition calm_config (c : config) : bool :=
  between (rms_norm_eps c) && between (query_pre_attn_scalar c) && (context c <=? longest)
  && (of_nat (groups c * (shared c * head_dim c)) <=? widest) && (of_nat (head_dim c) <=? widest)
  && good_table (exp_table c) && sound_table (exp_table c)
  && match embedding_scale c with None => true | Some scale => abs scale <=? 0x1p20 end.
Definition calm_block (b : block) : bool :=
  match window b with Some O => false | _ => true end
  && upto 1 (frequencies b)
  && upto norm_bound (input_layernorm b) && upto norm_bound (pre_mlp_layernorm b)
  && upto_if norm_bound (post_attention_layernorm b) && upto_if norm_bound
    (post_feedforward_layernorm b)
  && upto_if norm_bound (q_norm b) && upto_if norm_bound (k_norm b)
  && upto_if bias_bound (q_bias b) && upto_if bias_bound (k_bias b) && upto_if bias_bound (v_bias b)
  && calm_matrix (q_proj b) && calm_matrix (k_proj b) && calm_matrix (v_proj b)
  && calm_matrix (o_proj b) && calm_matrix (gate_proj b) && calm_matrix (up_proj b)
  && calm_matrix (down_proj b).
(* Of the embedding also that it holds float32 numbers. *)
Definition calm_embedding (e : matrix) : bool :=
  forallb (fun x => few x && forallb (fun x => (abs x <=? embedding_bound) && (narrow x =? x)) x) e.
Definition calm (m : model) : bool :=
  calm_config (conf m) && calm_embedding (embed_tokens m) && no_longer deepest (blocks m)
  && forallb calm_block (blocks m) && upto norm_bound (norm m) && forallb (upto weight_bound)
    (lm_head m).
