(* main DUMP OUT MODE...: the extracted decoder on a dump of decoder_dump.py.

   Writes, mode after mode, what it computes, as little-endian binary64: nothing is rounded here.
   Modes: forward, trace, calm, chunks=STEPS, other=STEPS, residual=BUDGET:CHUNK:tokens|rows:101:STEPS,
   scheduled=A:B:C:STEPS, narrow=FILE, exp=FILE, sin=FILE, cos=FILE.  STEPS are 1,2,<1,4: chunks of
   one and two tokens, back to the first one, then the four that follow; a CHUNK of 0 forgets
   nothing; a truncation that is refused gives one number, infinity. *)
open Decoder

(* Lists of weights stay: a collector that waits for little garbage keeps memory near their size. *)
let () = Gc.set { (Gc.get ()) with Gc.space_overhead = 40 }

let magic = "minikv dump 1\n"
let fail message = prerr_endline message; exit 2

(* Peano's numbers, which index lists. *)
let nat n = let rec go acc n = if n = 0 then acc else go (S acc) (n - 1) in go O n
let rec int_of_nat n acc = match n with O -> acc | S n -> int_of_nat n (acc + 1)

(* {1 Reading} *)
let input = try open_in_bin Sys.argv.(1) with _ -> fail "usage: main DUMP OUT MODE..."
let buffer = Bytes.create 8
let int32 () =
  (try really_input input buffer 0 4 with End_of_file -> fail (Sys.argv.(1) ^ " is cut short"));
  Bytes.get_int32_le buffer 0
let int () = Int32.to_int (int32 ())
let float64 () =
  (try really_input input buffer 0 8 with End_of_file -> fail (Sys.argv.(1) ^ " is cut short"));
  Int64.float_of_bits (Bytes.get_int64_le buffer 0)

(* Equal numbers share a box in memory if they are bfloat16: each has its place in a table by its
   bits.  (An array of floats would be flat, and reading it would make a new box; so
   would this function, inlined where its result is compared.) *)
type box = Box of float
let boxes =
  Array.init 65536 (fun i -> Box (Int32.float_of_bits (Int32.shift_left (Int32.of_int i) 16)))
let[@inline never] box bits =
  if Int32.logand bits 0xFFFFl = 0l then
    let Box x = boxes.(Int32.to_int (Int32.shift_right_logical bits 16)) in x
  else Int32.float_of_bits bits
let same (x : float) y = Int64.bits_of_float x = Int64.bits_of_float y
let shared = List.map (fun x -> let y = box (Int32.bits_of_float x) in if same x y then y else x)

let list n read =
  let rec go acc n = if n = 0 then List.rev acc else go (read () :: acc) (n - 1) in go [] n
let row n = list n (fun () -> box (int32 ()))

let model, tokens =
  let start =
    try really_input_string input (String.length magic) with End_of_file -> "" in
  if start <> magic then
    fail (Printf.sprintf "%s starts with %S, expected %S: write it anew with this run.py"
      Sys.argv.(1) start magic);
  let groups = int () in let heads = int () in let head_dim = int () in let width = int () in
  let inner = int () in let layers = int () in let vocabulary = int () in let count = int () in
  let gelu = int () = 1 in let scaled = int () = 1 in let bias = int () = 1 in
  let qk_norm = int () = 1 in let sandwich = int () = 1 in let tied = int () = 1 in
  let rms_norm_eps = float64 () in let query_pre_attn_scalar = float64 () in
  let norm_offset = float64 () in let scale = float64 () in
  let context = float64 () in let pattern_grid = float64 () in
  let ids = list count int in
  let rows = int () in
  let exp_table = list rows (fun () -> list 256 float64) in
  let conf = { groups = nat groups; shared = nat heads; head_dim = nat head_dim; rms_norm_eps;
    query_pre_attn_scalar; hidden_act = (if gelu then Gelu_pytorch_tanh else Silu); norm_offset;
    embedding_scale = (if scaled then Some scale else None); context; pattern_grid; exp_table } in
  let queries = groups * heads * head_dim and keys = groups * head_dim in
  (* Of the embedding only the rows that the text names are kept: `embed` reads no others. *)
  let used = Hashtbl.create 64 in
  List.iter (fun id -> Hashtbl.replace used id ()) ids;
  let weights x = shared (weight x) in
  let next = ref (-1) in
  let embedding = list vocabulary (fun () ->
    let x = row width in
    incr next;
    (if Hashtbl.mem used !next then x else []), (if tied then weights x else [])) in
  let embed_tokens = List.map fst embedding in
  let tied_head = if tied then List.map snd embedding else [] in
  (* `build`, a row at a time, so that no matrix is in memory twice. *)
  let matrix rows width = list rows (fun () -> weights (row width)) in
  let norm n = norm_weight norm_offset (row n) in
  let optional there read n = if there then Some (read n) else None in
  let block () =
    let w = int () in let window = if w = 0 then None else Some (nat w) in
    let frequencies = row (head_dim / 2) in
    let input_layernorm = norm width in
    let q_proj = matrix queries width in let k_proj = matrix keys width in
    let v_proj = matrix keys width in let o_proj = matrix width queries in
    let q_bias = optional bias row queries in let k_bias = optional bias row keys in
    let v_bias = optional bias row keys in
    let q_norm = optional qk_norm norm head_dim in let k_norm = optional qk_norm norm head_dim in
    let post_attention_layernorm = optional sandwich norm width in
    let pre_mlp_layernorm = norm width in
    let gate_proj = matrix inner width in let up_proj = matrix inner width in
    let down_proj = matrix width inner in
    let post_feedforward_layernorm = optional sandwich norm width in
    { window; frequencies; input_layernorm; q_proj; k_proj; v_proj; o_proj; q_bias; k_bias; v_bias;
      q_norm; k_norm; post_attention_layernorm; pre_mlp_layernorm; gate_proj; up_proj; down_proj;
      post_feedforward_layernorm } in
  let blocks = list layers block in
  let norm = norm width in
  let lm_head = if tied then tied_head else matrix vocabulary width in
  if in_channel_length input <> pos_in input then fail (Sys.argv.(1) ^ " holds more than a model");
  { conf; embed_tokens; blocks; norm; lm_head }, List.map nat ids

(* {1 Another machine} Backwards, in blocks of 7, products fused into the sums, doubting at will. *)
let rec cut n l = match l with
  | x :: rest when n > 0 -> let a, b = cut (n - 1) rest in x :: a, b
  | _ -> [], l
let rec blocks_of l = if l = [] then [] else let a, b = cut 7 l in a :: blocks_of b
let backwards = List.fold_left (fun total x -> x +. total) 0.
let other = {
  estimate = (fun xs -> List.fold_right ( +. ) xs 0.);
  doubts = (fun xs -> List.length xs mod 2 = 0);
  sum = (fun xs -> List.fold_right (fun b total -> total +. backwards b) (blocks_of xs) 0.);
  dot = (fun xs ws ->
    let rec zip xs ws = match xs, ws with x :: xs, w :: ws -> (x, w) :: zip xs ws | _ -> [] in
    let fused b = List.fold_right (fun (x, w) total -> Float.fma x w total) b 0. in
    List.fold_right (fun b total -> fused b +. total) (blocks_of (zip xs ws)) 0.) }

(* {1 Running} *)
let output = try open_out_bin Sys.argv.(2) with _ -> fail "usage: main DUMP OUT MODE..."
let put x =
  Bytes.set_int64_le buffer 0 (Int64.bits_of_float x);
  output_bytes output buffer
let put_row = List.iter put
let put_kv = List.iter (List.iter (fun (k, v) -> put_row k; put_row v))
let steps text =
  let number from word = int_of_string (String.sub word from (String.length word - from)) in
  let rec go tokens = function
    | [] -> []
    | word :: words when word.[0] = '<' -> Truncate (nat (number 1 word)) :: go tokens words
    | word :: words -> let a, b = cut (number 0 word) tokens in Read a :: go b words in
  go tokens (String.split_on_char ',' text)

let cached machine text =
  let logits, caches = decode_full machine model (steps text) in
  List.iter put_row logits; List.iter put_kv caches
let put_trace () =
  List.iter (fun (keys_values, rows) ->
    put_kv keys_values;
    List.iter (fun part -> List.iter (fun a -> put_row (part a)) rows)
      [(fun a -> a.ln1_normalized); (fun a -> a.attn_q); (fun a -> a.attn_rot_q);
       (fun a -> a.attn_z); (fun a -> a.attn_out); (fun a -> a.resid_mid);
       (fun a -> a.ln2_normalized); (fun a -> a.mlp_pre); (fun a -> a.mlp_pre_linear);
       (fun a -> a.mlp_post); (fun a -> a.mlp_out); (fun a -> a.resid_post)])
    (trace loops model tokens)
let apply f path =
  let file = open_in_bin path in
  let arguments = List.init (in_channel_length file / 8) (fun _ ->
    really_input file buffer 0 8; Int64.float_of_bits (Bytes.get_int64_le buffer 0)) in
  close_in file;
  List.iter (fun x -> put (f x)) arguments

let run mode = match String.split_on_char '=' mode with
  | ["forward"] -> List.iter put_row (logits loops model tokens)
  | ["trace"] -> put_trace ()
  | ["calm"] -> put (if calm model then 1. else 0.)
  | ["chunks"; text] -> cached loops text
  | ["other"; text] -> cached other text
  | ["narrow"; path] -> apply narrow path
  | ["exp"; path] -> apply (exp model.conf.exp_table) path
  | ["sin"; path] -> apply sin path
  | ["cos"; path] -> apply cos path
  | ["residual"; what] -> (match String.split_on_char ':' what with
    | [budget; chunk; kind; kept; text] ->
      let kept_at = List.init (String.length kept) (fun i -> kept.[i] = '1') in
      let chunk = match int_of_string chunk with 0 -> None | n -> Some (nat n) in
      (match decode_residual loops model (nat (int_of_string budget)) chunk (kind = "tokens")
          kept_at (steps text) with
       | Some rows -> List.iter put_row rows
       | None -> put Float.infinity)
    | _ -> fail ("unknown mode " ^ mode))
  | ["scheduled"; what] -> (match String.split_on_char ':' what with
    | [a; b; c; text] ->
      let factor n by = int_of_nat n 0 * int_of_string by in
      let schedule step layer position =
        match (factor step a + factor layer b + factor position c) mod 3 with
        | 0 -> WantKV | 1 -> WantResidual | _ -> WantBoth in
      List.iter put_row (decode_scheduled loops model schedule (steps text))
    | _ -> fail ("unknown mode " ^ mode))
  | _ -> fail ("unknown mode " ^ mode)

let () =
  Gc.compact ();
  for i = 3 to Array.length Sys.argv - 1 do
    let start = Sys.time () in
    run Sys.argv.(i);
    Printf.printf "%s %.2f\n%!" Sys.argv.(i) (Sys.time () -. start)
  done;
  close_out output
