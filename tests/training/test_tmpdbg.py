from dataclasses import replace
import json, torch
from er.training.data import BucketedBatches
from er.tasks import load_task
from er.training.methods import assemble
from er.training.module import RecyclingModule
from er.training.recycle import open_cache, recycle
from er.training.run import tokenized
from er.training.heads import LOSSES
from tests.training.test_kinds import KINDS
import pytest
@pytest.mark.parametrize("kind", KINDS)
def test_x(small, tmp_path, kind):
    make, options, _ = KINDS[kind]
    folder=tmp_path/kind; folder.mkdir()
    rows = [row | ({"id": f"{row['id']}-{i}"} if "id" in row else {}) for i in range(4) for row in make()]
    for s in ("train","dev","test"): (folder / f"{s}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = small(f"task={kind}", f"task.path={folder}", *options, "method=reduced", "cut=2")
    task=load_task(config.task,None)
    plain=tokenized(config,task)["train"]
    def mk():
        torch.manual_seed(0)
        p=assemble(config,2,task); return p
    a=mk(); b=mk()
    cached=replace(plain)
    recycle(open_cache(config,b.lower),b.lower,{"train":cached},config,torch.device("cpu"))
    ma=RecyclingModule(a,task,config.optim).train(); mb=RecyclingModule(b,task,config.optim).train()
    oa=torch.optim.AdamW([p for p in ma.parameters() if p.requires_grad],lr=1e-3); ob=torch.optim.AdamW([p for p in mb.parameters() if p.requires_grad],lr=1e-3)
    L=LOSSES[task.head]
    print(kind)
    for step,rows in enumerate(list(BucketedBatches(plain.tokens.lengths,8,0))*2):
        x=plain.batch(rows); y=cached.batch(rows)
        with torch.no_grad():
            h=a.lower(**x["inputs"]); m=x["inputs"]["attention_mask"].bool()
            dh=(h-y["hidden"])[m].abs().max().item(); dp=(h-y["hidden"])[~m].abs().max().item() if (~m).any() else 0
        torch.manual_seed(step); la=ma(x); lossa=L(la,x["labels"]); 
        torch.manual_seed(step); lb=mb(y); lossb=L(lb,y["labels"])
        oa.zero_grad(); ob.zero_grad(); lossa.backward(); lossb.backward(); oa.step(); ob.step()
        dw=max((p-q).abs().max().item() for p,q in zip(ma.head.parameters(),mb.head.parameters()))
        print(step,f"{dh:.1e} pad {dp:.1e} loss {lossa.item():.6f} {lossa.item()-lossb.item():.1e} dw {dw:.1e}", lossa.item())
