"""Formulas of docstrings, as a terminal shows them, and as the site typesets them.

A key is an indented paragraph of a docstring, its lines joined by single spaces;
`INLINE` holds parts of lines. `tests/test_docs.py` asks that each of them occurs.
"""

OBJECTIVE = r"\langle C, P\rangle + \varepsilon \sum_{ij} P_{ij} (\log P_{ij} - 1)"
MARGINALS = r"P \ge 0,\; P 1 = a,\; P^\top 1 = b"

DISPLAY = {
    "minimise <C, P> + epsilon sum P (log P - 1) over P >= 0, P 1 = a, P^T 1 = b": (
        rf"\min_P \; {OBJECTIVE} \quad\text{{over}}\quad {MARGINALS}"
    ),
    "minimise <C, P> over P >= 0, P 1 = a, P^T 1 = b": (
        rf"\min_P \; \langle C, P\rangle \quad\text{{over}}\quad {MARGINALS}"
    ),
    "minimise <C, P> + gamma/2 sum P^2 over P >= 0, P 1 = a, P^T 1 = b": (
        r"\min_P \; \langle C, P\rangle + \tfrac{\gamma}{2} \sum_{ij} P_{ij}^2 "
        rf"\quad\text{{over}}\quad {MARGINALS}"
    ),
    "minimise <C, P> + epsilon sum P (log P - 1) over P >= 0 with P 1 = a, "
    "P^T 1 = b, lower_k <= <A_k, P> <= upper_k": (
        rf"\min_P \; {OBJECTIVE} \quad\text{{over}}\quad {MARGINALS},\; "
        r"l_k \le \langle A_k, P\rangle \le u_k"
    ),
    "minimise <C, P> + penalty(P) + epsilon sum P (log P - 1) over P >= 0 with "
    "P 1 = a and P^T 1 = b": (
        r"\min_P \; \langle C, P\rangle + \mathrm{penalty}(P) + \varepsilon "
        r"\sum_{ij} P_{ij} (\log P_{ij} - 1) "
        rf"\quad\text{{over}}\quad {MARGINALS}"
    ),
    "minimise <C, P> over P = Q diag(1 / g) R^T with Q 1 = a, R 1 = b, "
    "Q^T 1 = R^T 1 = g": (
        r"\min_{Q, R, g} \; \langle C, P\rangle, \quad P = Q\,\mathrm{diag}(1/g)\,"
        r"R^\top, \quad Q 1 = a,\; R 1 = b,\; Q^\top 1 = R^\top 1 = g"
    ),
    "minimise (1 / n) sum_i c(x_i, y_p(i)) over permutations p": (
        r"\min_p \; \frac1n \sum_i c(x_i, y_{p(i)}) "
        r"\quad\text{over permutations } p"
    ),
    "F(P) = alpha Q(P) + (1 - alpha) <M, P> + epsilon sum P (log P - 1) "
    "Q(P) = sum_ijkl loss(x_ik, y_jl) P_ij P_kl": (
        r"\begin{aligned} F(P) &= \alpha\, Q(P) + (1 - \alpha) \langle M, P\rangle + "
        r"\varepsilon \sum_{ij} P_{ij} (\log P_{ij} - 1) \\ Q(P) &= \sum_{ijkl} "
        r"\mathrm{loss}(x_{ik}, y_{jl})\, P_{ij} P_{kl} \end{aligned}"
    ),
    "F(P) = alpha Q(P) + (1 - alpha) <M, P> + rho_a T(P 1, a) / 2 "
    "+ rho_b T(P^T 1, b) / 2 + epsilon T(P, a b^T) / 2, "
    "T(u, v) = KL(u x u | v x v) = 2 |u| <u, log u/v> - |u|^2 + |v|^2": (
        r"\begin{aligned} F(P) &= \alpha\, Q(P) + (1 - \alpha) \langle M, P\rangle + "
        r"\tfrac12 \rho_a T(P 1, a) + \tfrac12 \rho_b T(P^\top 1, b) + \tfrac12 "
        r"\varepsilon T(P, a b^\top) \\ T(u, v) &= \mathrm{KL}(u \otimes u \mid "
        r"v \otimes v) = 2 |u| \langle u, \log (u / v)\rangle - |u|^2 + |v|^2 "
        r"\end{aligned}"
    ),
    "f(x) = -epsilon log sum_j exp((g_j - c(x, y_j)) / epsilon)": (
        r"f(x) = -\varepsilon \log \sum_j \exp\frac{g_j - c(x, y_j)}{\varepsilon}"
    ),
    "T(x) = sum_j y_j p_j(x), p(x) = softmax_j((g_j - c(x, y_j)) / epsilon)": (
        r"T(x) = \sum_j y_j\, p_j(x), \quad p(x) = \mathrm{softmax}_j "
        r"\frac{g_j - c(x, y_j)}{\varepsilon}"
    ),
    "sum_j t_j p_j, p = softmax_j((g_j - C_j) / epsilon)": (
        r"\sum_j t_j\, p_j, \quad p = \mathrm{softmax}_j \frac{g_j - C_j}{\varepsilon}"
    ),
    "sum_i a_i c(x_i, T(x_i)) - min_P { <C, P> + epsilon sum P log(P / total) }": (
        r"\sum_i a_i\, c(x_i, T(x_i)) - \min_P \Bigl\{ \langle C, P\rangle + "
        r"\varepsilon \sum_{ij} P_{ij} \log (P_{ij} / \mathrm{total}) \Bigr\}"
    ),
    "loss_i = -sum_j target_ij log(P_ij / sum_k P_ik)": (
        r"\mathrm{loss}_i = -\sum_j \mathrm{target}_{ij} \log "
        r"\frac{P_{ij}}{\sum_k P_{ik}}"
    ),
    "loss_i = -log(P_ij / sum_k P_ik) at j = labels_i": (
        r"\mathrm{loss}_i = -\log \frac{P_{ij}}{\sum_k P_{ik}} "
        r"\quad\text{at}\quad j = \mathrm{labels}_i"
    ),
    "minimise sum_k w_k (OT(masses_k, b) - OT(b, b) / 2) over b": (
        r"\min_b \; \sum_k w_k \bigl( \mathrm{OT}(\mathrm{masses}_k, b) - \tfrac12 "
        r"\mathrm{OT}(b, b) \bigr)"
    ),
    "minimise sum_k w_k (<C_k, P_k> + epsilon sum P_k (log P_k - 1)) "
    "over b and P_k >= 0 with P_k 1 = masses_k and P_k^T 1 = b": (
        r"\begin{aligned} \min_{b, P_k \ge 0} \; & \sum_k w_k \bigl( \langle C_k, "
        r"P_k\rangle + \varepsilon \sum_{ij} P_{k,ij} (\log P_{k,ij} - 1) \bigr) \\ "
        r"& P_k 1 = \mathrm{masses}_k,\; P_k^\top 1 = b \end{aligned}"
    ),
    "GW(x, y) - GW(x, x) / 2 - GW(y, y) / 2, GW the `value` of `solve_quadratic`": (
        r"\mathrm{GW}(x, y) - \tfrac12 \mathrm{GW}(x, x) - \tfrac12 "
        r"\mathrm{GW}(y, y), \quad \mathrm{GW} \text{ the value of solve\_quadratic}"
    ),
    "weight sum_jc |P_Ic,j|_2, I_c the rows of class c": (
        r"\mathrm{weight} \sum_{j, c} \lVert P_{I_c, j} \rVert_2, \quad I_c "
        r"\text{ the rows of class } c"
    ),
    "weight / 2 sum_ik a_i a_k S_ik |T_i - T_k|^2, T_i = sum_j P_ij y_j / a_i": (
        r"\tfrac12\, \mathrm{weight} \sum_{ik} a_i a_k S_{ik} \lVert T_i - T_k "
        r"\rVert^2, \quad T_i = \sum_j P_{ij} y_j / a_i"
    ),
}

INLINE = {
    "<C, P> + epsilon sum P (log P - 1)": OBJECTIVE,
    "<C, P> + gamma/2 sum P^2": (
        r"\langle C, P\rangle + \tfrac{\gamma}{2} \sum_{ij} P_{ij}^2"
    ),
    "exp((f + g - C) / epsilon)": r"\exp((f_i + g_j - C_{ij}) / \varepsilon)",
    "exp((f_k + g_k - C_k) / epsilon)": r"\exp((f_k + g_k - C_k) / \varepsilon)",
    "rho_a KL(P 1 | a)": r"\rho_a \mathrm{KL}(P 1 \mid a)",
    "rho_b KL(P^T 1 | b)": r"\rho_b \mathrm{KL}(P^\top 1 \mid b)",
    "<a, f> = <b, g>": r"\langle a, f\rangle = \langle b, g\rangle",
    "<a, f> + <b, g>": r"\langle a, f\rangle + \langle b, g\rangle",
    "<C, P>": r"\langle C, P\rangle",
}
